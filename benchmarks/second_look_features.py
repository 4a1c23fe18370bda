"""Would a second look gain by seeing more of a candidate: what surrounds it, or the network's last maps?

    python benchmarks/second_look_features.py run NAME DATA RUN [RUN ...]     runs of `focalis fit --folds`
    python benchmarks/second_look_features.py table                           into docs/evidence-tables.md

The candidates of each model's inner split, at its threshold, train a logistic regression on the features that `fit`
takes, with the surroundings beside them, with the last maps, and with both; those of its held-out cases are ranked by
each. Surroundings: the mean probability in a shell of two voxels, and how much brighter the candidate is than that
shell, per channel, in standard deviations of the shell. Last maps: the mean over the candidate of each input of the
output layer. Sensitivity at a rate of false positives is pooled over models; differences are paired, over scans drawn
with replacement.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from second_look import RATES, curve, drawn, members, span
from tables import put

from focalis.dataset import Case
from focalis.lesions import (
    Candidates,
    features,
    find_candidates,
    fit_second_look,
    label_components,
    lesion_chance,
    temper,
)
from focalis.model import Model
from focalis.planning.preparation import prepare_image
from focalis.prediction import Settings, segment
from focalis.workflows.record import provenance, read_json, write_json

RESULTS = Path(__file__).parent / "results" / "second_look_features"
BEGIN, END = "<!-- features: made by benchmarks/second_look_features.py -->", "<!-- /features -->"
SHELL_VOXELS = 2
USUAL, AROUND, MAPS = "as now", "surroundings", "last maps"
SETS = {USUAL: (USUAL,), AROUND: (USUAL, AROUND), MAPS: (USUAL, MAPS), "both": (USUAL, AROUND, MAPS)}


def main() -> None:
    """Rank, judge, write; or the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("name", nargs="?")
    parser.add_argument("paths", type=Path, nargs="*")
    options = parser.parse_args()
    if options.what == "table":
        put(BEGIN, END, ["", *table(), ""])
        return
    began = provenance()
    rankings: dict[str, list[Candidates]] = {"highest probability": [], **{name: [] for name in SETS}}
    trained = []
    for name, model, inner, held_out in members("phantoms", options.paths):
        known, new = ([seen(model, case) for case in cases] for cases in (inner, held_out))
        right = np.concatenate([row.matched() for row, _ in known])
        trained.append({"model": name, "true": int(right.sum()), "false": int((~right).sum())})
        print(trained[-1], flush=True)
        rankings["highest probability"] += [row for row, _ in new]
        for title, kinds in SETS.items():
            weights = fit_second_look(np.concatenate([_joined(given, kinds) for _, given in known]), right)
            if not weights:
                raise SystemExit(f"{name}: its inner split has candidates of one kind only")
            rankings[title] += [
                replace(row, confidence=lesion_chance(weights, _joined(given, kinds))) for row, given in new
            ]
    write_json(RESULTS / f"{options.name}.json", {**began, "trained_on": trained, **judged(rankings)})


def seen(model: Model, case: Case) -> tuple[Candidates, dict[str, NDArray[np.float64]]]:
    """The candidates of a case at the model's threshold, and what is known of each, by kind, each of shape (m, k)."""
    volumes, label, point = list(case.read_images()), case.read_label(), model.operating_point
    found = segment(model, volumes, Settings(runtime="torch", minimum_mm3=0.0, minimum_confidence=0.0))
    lesions, count = label_components(found.mask > 0)
    spacing, probability = label.grid.spacing_zyx_mm, temper(found.probability, 1 / point.temperature)
    candidates = find_candidates(
        label.array > 0,
        found.mask > 0,
        found.probability,
        case=case.name,
        voxel_mm3=label.grid.voxel_volume_mm3,
    )
    image = prepare_image(volumes, model.plan).array
    if image.shape[1:] != lesions.shape:
        raise SystemExit(f"{case.name}: is resampled for the model, so its maps lie on other voxels")
    return candidates, {
        USUAL: features(lesions, count, probability, spacing),
        AROUND: surroundings(lesions, count, probability, image),
        MAPS: _means(last_maps(model, image), lesions, count),
    }


def surroundings(
    lesions: NDArray[np.int32], count: int, probability: NDArray[np.floating], image: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Mean probability in a shell around each component, and its contrast to that shell per channel."""
    found = np.zeros((count, 1 + len(image)))
    for number, box in enumerate(ndimage.find_objects(lesions)):
        wide = tuple(
            slice(max(0, side.start - SHELL_VOXELS - 1), side.stop + SHELL_VOXELS + 1) for side in box
        )
        inside = lesions[wide] == number + 1
        shell = ndimage.binary_dilation(inside, iterations=SHELL_VOXELS) & (lesions[wide] == 0)
        if not shell.any():
            continue
        found[number, 0] = probability[wide][shell].mean()
        for channel, values in enumerate(image, 1):
            near = values[wide][shell]
            found[number, channel] = (values[wide][inside].mean() - near.mean()) / max(
                float(near.std()), 1e-3
            )
    return found


def last_maps(model: Model, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the output layer of the model's network is given, (maps, z, y, x), over the whole image at once."""
    network, kept = model.members[0].eval(), []
    hook = network.heads()[0].register_forward_pre_hook(lambda _layer, given: kept.append(given[0]))
    strides = model.plan.network.total_stride_zyx
    fill = [(0, -size % stride) for size, stride in zip(image.shape[1:], strides, strict=True)]
    padded = np.pad(image, [(0, 0), *fill], mode="edge")
    with torch.inference_mode():
        network(torch.from_numpy(padded)[None])
    hook.remove()
    maps = torch.nn.functional.interpolate(kept[0].float(), padded.shape[1:])[0].numpy()
    return np.asarray(maps[:, : image.shape[1], : image.shape[2], : image.shape[3]])


def _means(maps: NDArray[np.float32], lesions: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """The mean of each map over each component, shape (components, maps)."""
    if not count:
        return np.zeros((0, len(maps)))
    return np.column_stack([ndimage.mean(each, lesions, np.arange(1, count + 1)) for each in maps])


def _joined(given: dict[str, NDArray[np.float64]], kinds: Sequence[str]) -> NDArray[np.float64]:
    return np.column_stack([given[kind] for kind in kinds])


def judged(rankings: dict[str, list[Candidates]]) -> dict[str, Any]:
    """Sensitivity of each ranking at each rate, and how much it differs from that of the features as they are now."""
    rows = rankings[USUAL]
    weights = drawn([row.case for row in rows])
    curves = {name: curve(each, weights) for name, each in rankings.items()}
    return {
        "scans": len({row.case for row in rows}),
        "true_lesions": sum(row.truth_mm3.size for row in rows),
        "candidates": sum(row.confidence.size for row in rows),
        "rankings": {
            name: {
                f"{rate:g}": [round(float(found[0, i]), 4), *span((found - curves[USUAL])[:, i])]
                for i, rate in enumerate(RATES)
            }
            for name, found in curves.items()
        },
    }


def table() -> list[str]:
    """A table per result."""
    lines = []
    for path in sorted(RESULTS.glob("*.json")):
        row = read_json(path)
        true, false = (sum(each[kind] for each in row["trained_on"]) for kind in ("true", "false"))
        lines += [
            f"{path.stem}: {len(row['trained_on'])} models, {true} true and {false} false candidates of their inner "
            f"splits; held out {row['scans']} scans, {row['true_lesions']} lesions, {row['candidates']} candidates.",
            "",
            f"| ranked by | {' | '.join(f'sensitivity at {rate:g} FP | less as now' for rate in RATES)} |",
            "|---" * (1 + 2 * len(RATES)) + "|",
        ]
        for name, found in row["rankings"].items():
            cells = [name]
            for value, difference, low, high in found.values():
                cells += [
                    f"{value:.3f}",
                    "" if name == USUAL else f"{difference:+.3f} ({low:+.3f} to {high:+.3f})",
                ]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return lines or ["Nothing has been measured yet."]


if __name__ == "__main__":
    main()
