"""How accurate the default is on four sets, from the rows of accuracy.py that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence_data import read_nodules
from evidence_figures import difference_of, mean_of
from evidence_plan import FitRow
from evidence_tables import Lines, not_all, revisions, table, text

from focalis.workflows.record import read_json

AIMS = {
    ("lidc_nodules", "dice labels"): "",
    ("lidc_nodules", "dice readers"): "0.79, the readers among themselves",
    ("msd_hippocampus", "dice label 1"): "0.90, at least 0.88",
    ("msd_hippocampus", "dice label 2"): "0.88, at least 0.86",
    ("sts_pet", "dice label 1"): "",
    ("oasis_inferior_ventricle", "dice label 1"): "",
}
"""The figures shown, and what is aimed at."""
THIRDS = ("smallest", "middle", "largest")


def contents_of(rows: Sequence[FitRow], results: Path) -> dict[str, list[dict[str, Any]]]:
    """The files that are there, by setting."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row.setting, [])
        path = row.path(results)
        if path.exists():
            found[row.setting].append({**read_json(path), "data": row.data, "name": row.title})
    return found


def pooled(contents: Sequence[Mapping[str, Any]], figure: str) -> dict[str, float]:
    """A figure of every held-out case of all folds."""
    return {case: value for content in contents for case, value in content["scores"].get(figure, {}).items()}


def thirds(nodules: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The cases of each third by the nodule's volume, and the volumes from and to."""
    ordered = sorted(nodules, key=lambda case: (nodules[case]["volume_mm3"], case))
    cuts = [0, len(ordered) // 3, len(ordered) - len(ordered) // 3, len(ordered)]
    return {name: ordered[a:b] for name, a, b in zip(THIRDS, cuts[:-1], cuts[1:], strict=True)}


def by_thirds(
    values: Mapping[str, float], nodules: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, dict[str, float]]]:
    """A figure's cases by third, each under its name and its range of volumes."""
    found = []
    for name, cases in thirds(nodules).items():
        if cases:
            volumes = [nodules[case]["volume_mm3"] for case in cases]
            title = f"{name} third, {min(volumes):.0f} to {max(volumes):.0f} mm3"
            found.append((title, {case: values[case] for case in cases if case in values}))
    return found


def accuracy(rows: Sequence[FitRow], results: Path) -> Lines:
    """The tables."""
    found = contents_of(rows, results)
    there = sum(map(len, found.values()))
    if not there:
        return not_all(there, len(rows))
    cells = []
    for setting, contents in found.items():
        of = [row for row in rows if row.setting == setting]
        data, name, folds = of[0].data, of[0].title, f"{len(contents)} of {len(of)}"
        if not contents:
            cells.append([data, name, folds, *[""] * 7])
            continue
        of_revisions = revisions(contents)
        size, steps = f"{contents[0]['parameters'] / 1e6:.2f} M", str(contents[0]["steps"])
        for (known, figure), aim in AIMS.items():
            if known == data:
                mean = mean_of(pooled(contents, figure))
                cells.append(
                    [data, name, folds, size, steps, figure, text(mean), str(mean.cases), aim, of_revisions]
                )
    nodules = read_nodules(results)
    rivals = {row.title: found[row.setting] for row in rows if row.data == "lidc_nodules"}
    ours = rivals.pop("dense")
    head = "data | network | folds | parameters | steps | figure | mean | cases | aim | revision"
    tables = [
        table(head, cells),
        _beside(ours, rivals, nodules),
        _thirds(ours, rivals, nodules),
        _plans(found),
    ]
    return [*not_all(there, len(rows)), *(line for one in tables if one for line in [*one, ""])][:-1]


def _beside(
    ours: Sequence[Mapping[str, Any]],
    rivals: Mapping[str, Sequence[Mapping[str, Any]]],
    nodules: Mapping[str, Mapping[str, Any]],
) -> Lines:
    """The nodules: beside the readers, and beside each rival."""
    among = {case: each["readers_dice"] for case, each in nodules.items() if each["readers_dice"] is not None}
    with_readers = pooled(ours, "dice readers")
    rows = []
    if any(case in with_readers for case in among):
        title = "with the readers; other: the readers among themselves"
        rows.append([title, *_pair(with_readers, among), ""])
    mine = pooled(ours, "dice labels")
    for name, contents in rivals.items():
        theirs = pooled(contents, "dice labels")
        if any(case in theirs for case in mine):
            seconds = ", ".join(f"{_seconds_per_window(each):.2f}" for each in (ours, contents))
            rows.append([f"windows; other: `{name}`", *_pair(mine, theirs), seconds])
        else:
            rows.append([f"windows; other: `{name}`", "", "not measured yet", "", "", ""])
    head = "lidc_nodules | default | other | difference | cases | seconds per window: default, other"
    return table(head, rows)


def _pair(mine: Mapping[str, float], theirs: Mapping[str, float]) -> list[str]:
    """Cells: the means of the cases that both have, the paired difference, and how many cases they are."""
    both = [case for case in mine if case in theirs]
    difference = difference_of(mine, theirs)
    means = [text(mean_of({case: values[case] for case in both})) for values in (mine, theirs)]
    return [*means, text(difference, sign=True), str(len(both))]


def _seconds_per_window(contents: Sequence[Mapping[str, Any]]) -> float:
    return float(np.median([content["scores"]["seconds per window"] for content in contents]))


def _thirds(
    ours: Sequence[Mapping[str, Any]],
    rivals: Mapping[str, Sequence[Mapping[str, Any]]],
    nodules: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    mine = pooled(ours, "dice labels")
    if not nodules or not mine:
        return []
    heads = "".join(f" | `{name}` | difference" for name in rivals)
    rows = []
    for title, values in by_thirds(mine, nodules):
        cells = [title, str(len(values)), text(mean_of(values))]
        for contents in rivals.values():
            theirs = pooled(contents, "dice labels")
            other = {case: theirs[case] for case in values if case in theirs}
            cells += [text(mean_of(other)), text(difference_of(values, other), sign=True)]
        rows.append(cells)
    return table(f"nodules by size | cases | default{heads}", rows)


def _plans(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """What the same command decided on each set."""
    rows = []
    for contents in found.values():
        if not contents or contents[0]["name"] != "dense":
            continue
        plan = contents[0]["plan"]
        training = plan["training"]
        # Rows from before turns were decided from the data hold no such fields.
        flips = [axis for axis, yes in zip("zyx", training.get("flip_axes_zyx", ()), strict=False) if yes]
        turned = training.get("turn_share")
        turns = "" if turned is None else f"{turned:.0%}, up to {training['turn_limit_deg']:g} degrees"
        rows.append(
            [
                contents[0]["data"],
                ", ".join(f"{mm:g}" for mm in plan["spacing_zyx_mm"]),
                " x ".join(map(str, plan["patch_zyx"])),
                str(plan["batch"]),
                ", ".join(how["kind"] for how in plan["normalisation"]),
                ", ".join(flips) or "none",
                turns + (", and all by quarters" if training.get("quarter_turns") else ""),
                f"`{plan['loss']['name']}`",
            ]
        )
    return table(
        "data | spacing z, y, x (mm) | patch | batch | intensities | mirrored along | turned | loss", rows
    )
