"""Is a classifier on candidates better than a minimum size and confidence? Trained models are judged.

    python benchmarks/second_look.py phantoms DATA RUN [RUN ...]              runs of `focalis fit --folds`
    python benchmarks/second_look.py nodules MODEL.safetensors [...]          models of `shapes_trial.py`

The candidates of the cases that a model did not learn from but that chose its operating point (the inner split) train a
logistic regression: is this a lesion? Its features are the probability in the candidate and around it, size, shape and
contrast; not its place, which in crops around lesions gives the answer away. On held-out cases its answer is set
against the candidate's highest probability: FROC, and what is reported at the setting that the inner split chooses, by
leaving out one case at a time.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import cut, windows_of
from numpy.typing import NDArray
from scipy import ndimage, special

from focalis.dataset import Case, open_dataset, read_splits
from focalis.evaluation import choose
from focalis.lesions import Candidates, find_candidates, label_components
from focalis.model import Model, load_model
from focalis.planning import prepare_image
from focalis.prediction import Settings, segment
from focalis.volume import Volume, resample_image
from focalis.workflows.record import provenance, read_json, write_json

RESULTS = Path(__file__).parent / "results" / "second_look"
FEATURES = (
    "logit of the highest probability",
    "logit of the mean probability",
    "log volume",
    "log of the summed probability",
    "share of the bounding box",
    "log elongation",
    "contrast with the shell around it",
    "spread in the shell",
    "logit of the mean probability in the shell",
)
LEVELS = (0.5, 0.2)
"""Thresholds that cut candidates: the usual one, and one that makes many."""
RATES = (0.25, 0.5, 1.0, 2.0)
SHELL_VOXELS, CUTOFFS, DRAWS, PENALTY = 2, 200, 1000, 1.0


@dataclass(frozen=True, eq=False)
class Looked:
    """The candidates of a case and the features of each, shape (m, FEATURES)."""

    candidates: Candidates
    features: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SecondLook:
    """A logistic regression on standardised features."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """The chance that each candidate is a lesion, shape (m,)."""
        x = (features - self.mean) / self.std
        return np.asarray(special.expit(x @ self.weights[1:] + self.weights[0]))


def main() -> None:
    """Predict, fit, judge, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["phantoms", "nodules"])
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    began = provenance()
    found: dict[str, Any] = {f"{level:g}": {"candidates": [0, 0], "rows": []} for level in LEVELS}
    arms: dict[str, list[tuple[Looked, dict[str, Any]]]] = {f"{level:g}": [] for level in LEVELS}
    for name, model, inner, held_out in members(options.what, options.paths):
        print(name, flush=True)
        windows = windows_of(held_out[0].images[0].parents[1]) if options.what == "nodules" else {}
        train_rows = [looked(model, case.name, case.read_images(), case.read_label()) for case in inner]
        test_rows = [
            looked(model, case.name, images, label)
            for case in held_out
            for images, label in parts(case, windows.get(case.name))
        ]
        for number, level in enumerate(LEVELS):
            train, test = ([row[number] for row in side] for side in (train_rows, test_rows))
            arms[f"{level:g}"] += reported(train, test, level)
            found[f"{level:g}"]["rows"].append([name, len(inner), sum(len(row.features) for row in train)])
    result = {
        level: {"members": found[level]["rows"], **judged([row for _, row in rows])}
        for level, rows in arms.items()
    }
    write_json(
        options.results / f"{options.what}.json", {**began, "features": FEATURES, "by_threshold": result}
    )
    for level, each in result.items():
        print(level, {name: value for name, value in each.items() if name != "members"})


def members(
    what: str, paths: Sequence[Path]
) -> Iterator[tuple[str, Model, tuple[Case, ...], tuple[Case, ...]]]:
    """Each model with the cases that its operating point was or would be chosen on, and held-out ones."""
    if what == "phantoms":
        data = open_dataset(paths[0])
        for run in paths[1:]:
            for fold in sorted(run.glob("fold_*")):
                cases = read_json(fold / "record.json")["cases"]
                yield (
                    f"{run.parent.name}/{fold.name}",
                    load_model(fold / "model.safetensors"),
                    data.select(cases["inner"]),
                    data.select(cases["held_out"]),
                )
        return
    from shapes_trial import draw

    data = open_dataset(Path(os.environ["FOCALIS_DATA"]) / "lidc_nodules")
    held_out = read_splits(data.root / "splits_5fold.json")[0].val
    for path in paths:
        yield path.stem, load_model(path), data.select(draw(data, 10, 0).val), data.select(held_out)


def parts(
    case: Case, origins: Sequence[tuple[int, int, int]] | None
) -> Iterator[tuple[list[Volume], Volume]]:
    """Images and label of a case, or of each of its windows: off the middle, where crops hold their lesion."""
    images, label = list(case.read_images()), case.read_label()
    if origins is None:
        yield images, label
    for origin in origins or ():
        yield [cut(image, origin) for image in images], cut(label, origin)


def looked(model: Model, case: str, volumes: Sequence[Volume], label: Volume) -> list[Looked]:
    """The candidates of a case at every level."""
    found = segment(model, volumes, Settings(runtime="torch"))
    truth = label.array > 0
    prepared = prepare_image(volumes, model.plan)
    image = resample_image(Volume(prepared.array[0], prepared.grid), found.grid).array
    voxel_mm3, rows = found.grid.voxel_volume_mm3, []
    for level in LEVELS:
        mask = found.probability >= level
        candidates = find_candidates(truth, mask, found.probability, case=case, voxel_mm3=voxel_mm3)
        rows.append(Looked(candidates, features(mask, found.probability, image, found.grid.spacing_zyx_mm)))
    return rows


def features(
    mask: NDArray[np.bool_],
    probability: NDArray[np.float32],
    image: NDArray[np.float32],
    spacing_zyx_mm: Sequence[float],
) -> NDArray[np.float64]:
    """`FEATURES` of each component of a mask, shape (m, FEATURES); the image is normalised as the network sees it."""
    components, count = label_components(mask)
    rows = np.zeros((count, len(FEATURES)))
    spacing = np.asarray(spacing_zyx_mm)
    for number, box in enumerate(ndimage.find_objects(components), start=1):
        wide = tuple(slice(max(side.start - SHELL_VOXELS, 0), side.stop + SHELL_VOXELS) for side in box)
        inside = components[wide] == number
        grown = ndimage.binary_dilation(inside, np.ones((3, 3, 3)), SHELL_VOXELS)
        shell = grown & ~mask[wide]
        p, values = probability[wide], image[wide]
        voxels = np.argwhere(inside) * spacing
        spread = (
            np.linalg.eigvalsh(np.cov(voxels.T, bias=True) + np.diag(spacing**2 / 12))
            if len(voxels) > 1
            else spacing**2
        )
        rows[number - 1] = (
            _logit(p[inside].max()),
            _logit(p[inside].mean()),
            np.log(inside.sum() * spacing.prod()),
            np.log(p[inside].sum() * spacing.prod()),
            inside.sum() / np.prod([side.stop - side.start for side in box]),
            0.5 * np.log(spread[-1] / spread[0]),
            values[inside].mean() - (values[shell].mean() if shell.any() else 0),
            values[shell].std() if shell.any() else 0,
            _logit(p[shell].mean() if shell.any() else 0),
        )
    return rows


def _logit(probability: float) -> float:
    return float(special.logit(np.clip(np.float64(probability), 1e-6, 1 - 1e-6)))


def fitted(rows: Sequence[Looked]) -> SecondLook | None:
    """The regression on the candidates of some cases; None unless both kinds are among them."""
    x = np.concatenate([row.features for row in rows]) if rows else np.zeros((0, len(FEATURES)))
    y = np.concatenate([row.candidates.matched() for row in rows]) if rows else np.zeros(0, bool)
    if not 0 < y.sum() < y.size:
        return None
    mean, std = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    x = np.column_stack([np.ones(len(x)), (x - mean) / std])
    weights, penalty = np.zeros(x.shape[1]), PENALTY * np.eye(x.shape[1])
    penalty[0, 0] = 1e-6
    for _ in range(30):
        p = special.expit(x @ weights)
        step = np.linalg.solve(
            (x * (p * (1 - p))[:, None]).T @ x + penalty, x.T @ (y - p) - penalty @ weights
        )
        weights += step
    return SecondLook(mean, std, weights)


def reported(
    train: Sequence[Looked], test: Sequence[Looked], level: float
) -> list[tuple[Looked, dict[str, Any]]]:
    """Per held-out case what each arm says: scores of the candidates, and which are reported."""
    look = fitted(train)
    if look is None:
        return []
    plain = choose([(row.candidates,) for row in train], thresholds=(level,))
    left_out = []
    for number, row in enumerate(train):
        other = fitted([each for i, each in enumerate(train) if i != number])
        left_out.append((replace(row.candidates, confidence=(other or look)(row.features)),))
    second = choose(left_out, thresholds=(1e-3,))
    rows = []
    for row in test:
        candidates, scores = row.candidates, look(row.features)
        by_look = replace(candidates, confidence=scores)
        keeps = {
            "nothing dropped": candidates.kept(0, 0),
            "size and confidence": candidates.kept(plain.minimum_mm3, plain.minimum_confidence),
            "second look": by_look.kept(second.minimum_mm3, second.minimum_confidence),
        }
        rows.append((row, {"plain": candidates, "second": by_look, "keeps": keeps}))
    return rows


def judged(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """FROC of both rankings, and each arm's figures; differences are paired, over scans drawn with replacement."""
    names = sorted({row["plain"].case for row in rows})
    where = np.array([names.index(row["plain"].case) for row in rows])
    draws = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    weights = np.vstack([np.ones(len(names), int), draws])[:, where]
    curves = {name: curve([row[name] for row in rows], weights) for name in ("plain", "second")}
    more = curves["second"] - curves["plain"]
    froc = {
        f"{rate:g}": [round(curves["plain"][0, i], 4), round(curves["second"][0, i], 4), *span(more[:, i])]
        for i, rate in enumerate(RATES)
    }
    arms = {name: figures(rows, name, weights) for name in rows[0]["keeps"]}
    known = arms["size and confidence"]
    return {
        "scans": len(rows),
        "true_lesions": int(sum(row["plain"].truth_mm3.size for row in rows)),
        "candidates": int(sum(row["plain"].confidence.size for row in rows)),
        "froc": froc,
        "arms": {
            name: {key: round(float(value[0]), 4) for key, value in each.items()}
            for name, each in arms.items()
        },
        "second_less_size_and_confidence": {
            key: span(value - known[key]) for key, value in arms["second look"].items()
        },
    }


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
    rate = weights @ false / weights.sum(axis=1, keepdims=True)
    sensitivity = weights @ hits / np.maximum(weights @ there, 1)[:, None]
    return np.stack([np.where(rate <= most, sensitivity, 0).max(axis=1) for most in RATES], axis=1)


def figures(
    rows: Sequence[dict[str, Any]], arm: str, weights: NDArray[np.int_]
) -> dict[str, NDArray[np.float64]]:
    """Lesion F1, sensitivity, false positives per scan and mean Dice of an arm, each of shape (draws,)."""
    matchings = [row["plain"].overlaps.match(row["keeps"][arm]) for row in rows]
    found, missed, false = (
        weights @ np.array([len(getattr(each, name)) for each in matchings])
        for name in ("pairs", "unmatched_truth", "unmatched_predicted")
    )
    scans = weights.sum(axis=1)
    dice = weights @ np.array([row["plain"].dice(row["keeps"][arm]) for row in rows])
    return {
        "f1": 2 * found / np.maximum(2 * found + missed + false, 1),
        "sensitivity": found / np.maximum(found + missed, 1),
        "fp_per_scan": false / scans,
        "dice": dice / scans,
    }


def span(draws: NDArray[np.float64]) -> list[float]:
    """The value itself, which comes first, and its 95 % interval."""
    return [round(float(value), 4) for value in (draws[0], *np.quantile(draws[1:], (0.025, 0.975)))]


if __name__ == "__main__":
    main()
