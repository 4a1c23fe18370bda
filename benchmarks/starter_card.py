"""The model card of the lung-nodule model: the text of starter_card.md, its figures from results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from evidence_accuracy import by_thirds, pooled
from evidence_figures import mean_of
from evidence_tables import revisions, text

from focalis.planning import SCRATCH, SHAPES

TEMPLATE = Path(__file__).with_name("starter_card.md")
MISSED = 0.1
FAINT = 3
"""Of LIDC's texture score, 1 (non-solid, ground glass) to 5 (solid): up to here a nodule is not solid."""

WEIGHTS = {SCRATCH: "random weights", SHAPES: "the weights [shapes](shapes.md)"}
FROM_CROPS = ("crops", "crops_with_false", "lesions", "lesions_detected", "lesions_false")


def card(
    record: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    nodules: Mapping[str, Mapping[str, Any]],
    folds: int,
    crops: Mapping[str, Any],
    held_out: Mapping[str, Any],
) -> str:
    """The card as Markdown.

    Args:
        record: what was kept of the training.
        rows: the accuracy rows of the same recipe, one per held-out fold.
        nodules: each case's volume, texture and the agreement of its readers.
        folds: how many folds there should be.
        crops: what starter_crops.py found on the whole crops of the training cases.
        held_out: what it found on those of the folds' held-out cases, with the folds' models.
    """
    found = pooled(rows, "dice labels")
    faint = {case: value for case, value in found.items() if nodules[case]["texture"] <= FAINT}
    solid = {case: value for case, value in found.items() if nodules[case]["texture"] > FAINT}
    shipped = held_out["at_the_shipped_point"]
    tested = sorted({row["steps"] for row in rows})
    warning = (
        f"**The model was trained for {record['steps']} steps: these figures are not those of its recipe.**\n"
    )
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        record,
        spacing=" x ".join(f"{mm:g}" for mm in record["plan"]["spacing_zyx_mm"]),
        network=record["plan"]["network"]["name"],
        start=WEIGHTS[record["plan"].get("start", SCRATCH)],
        parameters=f"{record['parameters'] / 1e6:.2f}",
        threshold=f"{record['threshold']:.4g}",
        minimum_mm3=f"{record['minimum_mm3']:.0f}",
        minimum_confidence=f"{record['minimum_confidence']:.4g}",
        drops_nothing=" (below the threshold, so it drops nothing)"
        if record["minimum_confidence"] <= record["threshold"]
        else "",
        temperature=f"{record['temperature']:.4g}",
        megabytes=f"{record['bytes'] / 1e6:.1f}",
        weights_sha256=crops["model_sha256"],
        revision=revisions([record]),
        **record["half"],
        eight_bit_how=record["eight_bit"]["how"],
        tested_steps=", ".join(map(str, tested)),
        folds_there=len(rows),
        folds=folds,
        missed=MISSED,
        figures="\n".join(_figures(found, rows, nodules)),
        dice_held_out=text(mean_of(found)),
        dice_windows=f"{record['half']['dice_stored']:.3f}",
        **_of_crops(crops),
        **{f"held_out_{name}": value for name, value in _of_crops(held_out).items()},
        **{f"shipped_{name}": value for name, value in _of_crops(shipped).items()},
        warning="" if tested == [record["steps"]] else warning,
        faint=FAINT,
        dice_faint=text(mean_of(faint)) or "unknown",
        cases_faint=len(faint),
        missed_faint=_missed(faint),
        dice_solid=text(mean_of(solid)) or "unknown",
        cases_solid=len(solid),
        missed_solid=_missed(solid),
    )


def _of_crops(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of what was found on whole crops."""
    return {
        **{name: found[name] for name in FROM_CROPS},
        "lesions_missed": found["lesions"] - found["lesions_detected"],
        "lesions_reported": found["lesions_detected"] + found["lesions_false"],
        "false_per_crop": f"{found['lesions_false'] / found['crops']:.2f}",
        "dice_crops": text(mean_of({case: row["dice"] for case, row in found["cases"].items()})),
        "dice_crops_without_false": f"{found['dice_without_false']:.3f}",
    }


def _figures(
    found: Mapping[str, float], rows: Sequence[Mapping[str, Any]], nodules: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    named = [("all", dict(found)), *by_thirds(found, nodules)]
    lines = [
        f"| {title} | {len(values)} | {text(mean_of(values))} | {_missed(values)} |"
        for title, values in named
    ]
    readers = pooled(rows, "dice readers")
    among = {case: nodules[case]["readers_dice"] for case in found}
    among = {case: value for case, value in among.items() if value is not None}
    paired = {case: value for case, value in readers.items() if case in among}
    return [
        *lines,
        f"| all, against every reader of theirs | {len(readers)} | {text(mean_of(readers))} | |",
        f"| those of two readers or more, against every reader | {len(paired)} | {text(mean_of(paired))} | |",
        f"| the same, the readers among themselves | {len(among)} | {text(mean_of(among))} | |",
    ]


def _missed(values: Mapping[str, float]) -> int:
    return sum(value < MISSED for value in values.values())
