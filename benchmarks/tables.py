"""Write the tables of accuracy and speed in docs/evidence-tables.md, from benchmarks/results/accuracy and speed.

    python benchmarks/tables.py

Rows of one data set, time, loss and network are pooled over folds and seeds; the interval is a 95 % bootstrap
interval over patients.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from evidence_tables import revisions

from focalis.evaluation import bootstrap_interval
from focalis.files import write_text
from focalis.planning import SCRATCH

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "evidence-tables.md"
SPEED_BEGIN, SPEED_END = "<!-- speed: made by benchmarks/tables.py -->", "<!-- /speed -->"
BEGIN, END = "<!-- accuracy: made by benchmarks/tables.py -->", "<!-- /accuracy -->"
HEAD = (
    "| data | training | figure | mean | 95 % interval | median | cases "
    "| parameters | training time | s per case | peak memory |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def main() -> None:
    """Read every result and replace the table on the page."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted((HERE / "results" / "accuracy").glob("*.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        plan = row["plan"]
        start = plan.get("start", SCRATCH)
        network = plan["network"]["name"] + ("" if start == SCRATCH else f" from {start}")
        groups[row["dataset"], f"{row['minutes']:g} min", plan["loss"]["name"], network].append(row)
    lines = [line for key, rows in groups.items() for line in table_rows(key, rows)]
    page = replaced(PAGE.read_text(encoding="utf-8"), BEGIN, END, [*HEAD, *lines])
    page = replaced(page, SPEED_BEGIN, SPEED_END, speed_tables())
    PAGE.write_text(page, encoding="utf-8")
    print(f"{PAGE}: {len(lines)} rows of accuracy")


def replaced(page: str, begin: str, end: str, lines: list[str]) -> str:
    """The page with these lines between two marks."""
    before, after = page.split(begin)[0], page.split(end)[1]
    return "\n".join([before + begin, *lines, end]) + after


def put(begin: str, end: str, lines: list[str]) -> None:
    """Write these lines between two marks of docs/evidence-tables.md."""
    write_text(PAGE, replaced(PAGE.read_text(encoding="utf-8"), begin, end, lines))


def speed_tables() -> list[str]:
    """One table per speed benchmark: its rows, the fitted exponents, and what the machine reached in the same run."""
    lines = []
    for path in sorted((HERE / "results" / "speed").glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        rows = list(result["rows"])
        if "exponents" in result:
            rows.append({"n": "exponent", **result["exponents"]})
        if "last_exponents" in result:
            rows.append({"n": "exponent of the last two", **result["last_exponents"]})
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines += ["", f"`{result['command']}`", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
        lines += [f"| {' | '.join(shown(row.get(name)) for name in names)} |" for row in rows]
        about = (
            f"{result['machine']['processor']}, {result['threads']} threads, revision {revisions([result])}"
        )
        reached = ", ".join(f"{name} {value:.3g}" for name, value in result.get("peaks", {}).items())
        lines += ["", f"({about}{'; peak in the same run: ' + reached if reached else ''})"]
    return [*lines, ""]


def shown(value: Any) -> str:
    """A cell."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return "" if value is None else str(value)


def table_rows(key: tuple[str, ...], rows: list[dict[str, Any]]) -> list[str]:
    """One line per figure, pooled over the group's folds and seeds."""
    folds = sorted({row["fold"] for row in rows})
    training = f"{', '.join(key[1:])}; fold {', '.join(map(str, folds))}; {rows[0]['steps']} steps"
    parameters = f"{rows[0]['parameters'] / 1e6:.2f} M"
    time = f"{np.mean([row['training_seconds'] for row in rows]) / 60:.1f} min"
    seconds = f"{np.mean([row['seconds_per_predicted_case'] for row in rows]):.2f}"
    memory = f"{max(row['peak_memory_gb'] for row in rows):.2f} GB"
    lines = []
    for figure in [name for name, value in rows[0]["scores"].items() if isinstance(value, dict)]:
        by_case: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            for case, value in row["scores"][figure].items():
                by_case[case].append(value)
        values = np.array([np.mean(found) for found in by_case.values()])
        low, high = bootstrap_interval(values) or (float("nan"), float("nan"))
        lines.append(
            f"| {key[0]} | {training} | {figure} | {values.mean():.3f} | {low:.3f} to {high:.3f} "
            f"| {np.median(values):.3f} | {len(values)} | {parameters} | {time} | {seconds} | {memory} |"
        )
    return lines


if __name__ == "__main__":
    main()
