"""What a second look at candidates is worth on held-out cases, with models that are trained already.

    python benchmarks/second_look.py phantoms DATA RUN [RUN ...]              runs of `focalis fit --folds`
    python benchmarks/second_look.py nodules MODEL.safetensors [...]          models of `shapes_trial.py`
    python benchmarks/second_look.py table                                   what is there, into docs/evidence-tables.md

Each model's operating point is chosen anew on the cases that it was chosen on, as `fit` does: with a second look, where
that does better there, and without. Held-out cases are predicted once. Compared are the rankings of the candidates
(FROC: the chance of the second look against the highest probability) and what is reported. Nodules are judged by the
windows protocol: in crops around a lesion its place would give it away.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import cut as window
from accuracy import windows_of
from numpy.typing import NDArray
from tables import put

from focalis.dataset import Case, open_dataset, read_splits
from focalis.evaluation import point_choice as choice
from focalis.lesions import Candidates, features, find_candidates, label_components, lesion_chance, temper
from focalis.model import Model, load_model
from focalis.prediction import Settings, choose_runtime, segment
from focalis.training import operating_point, prepare_cases
from focalis.volume import Volume
from focalis.workflows.record import provenance, read_json, write_json

RESULTS = Path(__file__).parent / "results" / "second_look"
BEGIN, END = "<!-- second look: made by benchmarks/second_look.py -->", "<!-- /second look -->"
RATES = (0.25, 0.5, 1.0, 2.0)
CUTOFFS, DRAWS = 200, 1000
PLAIN, LOOK = "size and confidence", "second look"


def main() -> None:
    """Choose, predict, judge, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["phantoms", "nodules", "table"])
    parser.add_argument("paths", type=Path, nargs="*")
    parser.add_argument("--even-few", action="store_true", help="take a second look with few candidates too")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.what == "table":
        put(BEGIN, END, ["", *table(), ""])
        return
    began = provenance()
    if options.even_few:
        choice.LEAST_CANDIDATES = 5
    rows: list[dict[str, Any]] = []
    said = []
    for name, model, inner, held_out in members(options.what, options.paths):
        with tempfile.TemporaryDirectory() as folder:
            prepared = prepare_cases(inner, model.plan, Path(folder))
            point = operating_point(model.plan, model.members[0], prepared, choose_runtime())
        said.append({"model": name, "cases": len(inner), "point": str(point)})
        print(said[-1], flush=True)
        windows = windows_of(held_out[0].images[0].parents[1]) if options.what == "nodules" else {}
        for case in held_out:
            for images, label in parts(case, windows.get(case.name)):
                rows.append(judged(replace(model, operating_point=point), case.name, images, label))
    result = {"models": said, **summary(rows)}
    few = "-even-few" if options.even_few else ""
    write_json(options.results / f"{options.what}{few}.json", {**began, **result})
    print({name: value for name, value in result.items() if name != "models"})


def members(
    what: str, paths: Sequence[Path]
) -> Iterator[tuple[str, Model, tuple[Case, ...], tuple[Case, ...]]]:
    """Each model with the cases that its operating point is chosen on, and held-out ones."""
    if what == "phantoms":
        data = open_dataset(paths[0])
        for run in paths[1:]:
            for fold in sorted(run.glob("fold_*")):
                cases = read_json(fold / "record.json")["cases"]
                name = f"{run.parent.name}/{fold.name}"
                model = load_model(fold / "model.safetensors")
                yield name, model, data.select(cases["inner"]), data.select(cases["held_out"])
        return
    from shapes_trial import draw

    data = open_dataset(Path(os.environ["FOCALIS_DATA"]) / "lidc_nodules")
    held_out = read_splits(data.root / "splits_5fold.json")[0].val
    for path in paths:
        yield path.stem, load_model(path), data.select(draw(data, 10, 0).val), data.select(held_out)


def parts(
    case: Case, origins: Sequence[tuple[int, int, int]] | None
) -> Iterator[tuple[list[Volume], Volume]]:
    """Images and label of a case, or of each of its windows."""
    images, label = list(case.read_images()), case.read_label()
    if origins is None:
        yield images, label
    for origin in origins or ():
        yield [window(image, origin) for image in images], window(label, origin)


def judged(model: Model, case: str, images: Sequence[Volume], label: Volume) -> dict[str, Any]:
    """The candidates of a case, each ranking of them, and which of them are reported with a second look and without."""
    point = model.operating_point
    found = segment(model, images, Settings(runtime="torch"))
    raw = segment(model, images, Settings(runtime="torch", minimum_mm3=0.0, minimum_confidence=0.0))
    lesions, count = label_components(raw.mask > 0)
    candidates = find_candidates(
        label.array > 0, raw.mask > 0, raw.probability, case=case, voxel_mm3=label.grid.voxel_volume_mm3
    )
    plain = candidates.kept(point.minimum_mm3, point.minimum_confidence)
    reported = np.isin(np.arange(1, count + 1), np.unique(lesions[found.mask > 0]))
    if not point.second_look:
        return {"plain": candidates, "look": candidates, PLAIN: plain, LOOK: plain}
    given = features(
        lesions, count, temper(raw.probability, 1 / point.temperature), label.grid.spacing_zyx_mm
    )
    look = replace(candidates, confidence=lesion_chance(point.second_look, given))
    return {"plain": candidates, "look": look, PLAIN: plain, LOOK: reported}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """FROC of both rankings where there is a second look, and each way's figures over all predictions.

    Differences are paired, over scans drawn with replacement.
    """
    weights = drawn([row["plain"].case for row in rows])
    by_look = [number for number, row in enumerate(rows) if row["look"] is not row["plain"]]
    curves = [curve([rows[i][name] for i in by_look], weights[:, by_look]) for name in ("plain", "look")]
    ways = {name: figures(rows, name, weights) for name in (PLAIN, LOOK)}
    return {
        "predictions": len(rows),
        "scans": len({row["plain"].case for row in rows}),
        "true_lesions": sum(row["plain"].truth_mm3.size for row in rows),
        "candidates": sum(row["plain"].confidence.size for row in rows),
        "predictions_by_a_second_look": len(by_look),
        "sensitivity_at": {
            f"{rate:g}": [float(round(c[0, i], 4)) for c in curves] + [span((curves[1] - curves[0])[:, i])]
            for i, rate in enumerate(RATES)
        },
        "reported": {
            name: {key: round(float(value[0]), 4) for key, value in each.items()}
            for name, each in ways.items()
        },
        "difference": {key: span(value - ways[PLAIN][key]) for key, value in ways[LOOK].items()},
    }


def drawn(cases: Sequence[str]) -> NDArray[np.int_]:
    """How often each row counts, by its case: once, then in each draw of scans with replacement; (1 + draws, rows)."""
    names = sorted(set(cases))
    where = np.array([names.index(case) for case in cases])
    draws = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    return np.asarray(np.vstack([np.ones(len(names), int), draws])[:, where])


def curve(rows: Sequence[Candidates], weights: NDArray[np.int_]) -> NDArray[np.float64]:
    """The sensitivity at each of `RATES`, shape (draws, rates)."""
    scores = np.unique(np.concatenate([row.confidence for row in rows]))[::-1]
    cutoffs = scores[np.unique(np.linspace(0, scores.size - 1, CUTOFFS).round().astype(int))]
    hits, false = np.zeros((2, len(rows), cutoffs.size))
    for number, row in enumerate(rows):
        for i, cutoff in enumerate(cutoffs):
            matching = row.overlaps.match(row.confidence >= cutoff)
            hits[number, i], false[number, i] = len(matching.pairs), len(matching.unmatched_predicted)
    there = np.array([row.truth_mm3.size for row in rows])
    rate = weights @ false / weights.sum(axis=1, keepdims=True).clip(min=1)
    sensitivity = weights @ hits / np.maximum(weights @ there, 1)[:, None]
    return np.stack([np.where(rate <= most, sensitivity, 0).max(axis=1) for most in RATES], axis=1)


def figures(
    rows: Sequence[dict[str, Any]], way: str, weights: NDArray[np.int_]
) -> dict[str, NDArray[np.float64]]:
    """Lesion F1, sensitivity, false positives per scan and mean Dice, each of shape (draws,)."""
    matchings = [row["plain"].overlaps.match(row[way]) for row in rows]
    found, missed, false = (
        weights @ np.array([len(getattr(each, name)) for each in matchings])
        for name in ("pairs", "unmatched_truth", "unmatched_predicted")
    )
    scans = weights.sum(axis=1)
    dice = weights @ np.array([row["plain"].dice(row[way]) for row in rows])
    return {
        "f1": 2 * found / np.maximum(2 * found + missed + false, 1),
        "sensitivity": found / np.maximum(found + missed, 1),
        "fp_per_scan": false / scans,
        "dice": dice / scans,
    }


def table() -> list[str]:
    """The results that are there, a line each; the figures of both ways, and their difference with its interval."""
    lines = [
        "| models | scans, true lesions | with a second look | lesion F1 | less | false positives per scan | less "
        "| sensitivity | less | Dice | less |",
        "|---" * 11 + "|",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        row = read_json(path)
        taken = sum("second look" in each["point"] for each in row["models"])
        cells = [path.stem, f"{row['scans']}, {row['true_lesions']}", f"{taken} of {len(row['models'])}"]
        for key in ("f1", "fp_per_scan", "sensitivity", "dice"):
            before, after = (row["reported"][way][key] for way in (PLAIN, LOOK))
            value, low, high = row["difference"][key]
            cells += [f"{before:.3f}, {after:.3f}", f"{value:+.3f} ({low:+.3f} to {high:+.3f})"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def span(draws: NDArray[np.float64]) -> list[float]:
    """The value itself, which comes first, and its 95 % interval."""
    return [round(float(value), 4) for value in (draws[0], *np.quantile(draws[1:], (0.025, 0.975)))]


if __name__ == "__main__":
    main()
