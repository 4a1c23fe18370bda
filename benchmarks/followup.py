"""How well follow-up measures growth: generated pairs of known growth, shift, rotation and noise.

    python benchmarks/followup.py            runs what is missing, and writes benchmarks/results/followup.json
    python benchmarks/followup.py --table    prints its table of docs/evidence-tables.md

Each scene holds six round lesions of one size, of which one is gone on the second date, one is new, and four have grown
by 0 to 100 % in volume. The person moved, the second scan has another spacing, and both are noisy. Masks are the voxels
above half of the contrast in the smoothed image, as a simple reader would draw them; a second reader saw other noise.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from follow_scenes import Ball, grid_of, scan, turned

from focalis.followup import Study, Track, estimate_error, make_study, measure, place, track
from focalis.volume import Grid
from focalis.workflows.record import provenance, read_json, write_json

RESULT = Path(__file__).parent / "results" / "followup.json"
RADII_MM = (3.0, 4.5, 7.0, 10.0)
SCENES = 3
GROWTHS = (1.0, 1.2, 1.5, 2.0)
CENTRES = (
    (-30.0, -15.0, -30.0),
    (30.0, -15.0, -30.0),
    (0.0, 22.0, -25.0),
    (-30.0, 12.0, 25.0),
    (30.0, 10.0, 25.0),
    (0.0, -20.0, 30.0),
)
GRIDS = grid_of((2.0, 2.0, 2.0)), grid_of((1.5, 1.5, 2.5), (-64.5, -54.0, -75.0), (67.5, 57.0, 75.0))
NOISE = 8.0


@dataclass(frozen=True)
class Found:
    """A lesion that stays: its true and measured growth, and whether the stated error covers the gap."""

    radius_mm: float
    true_ratio: float
    measured_ratio: float
    covered: bool


def date(name: str, balls: list[Ball], grid: Grid, moved: Any, seed: int) -> Study:
    """A scan with the mask that a reader draws of it; the reader knows where lesions are, not how large."""
    image, truth = scan(balls, grid, moved, NOISE, seed)
    plain, _ = scan([], grid, moved, 0.0, seed)
    contrast = scipy.ndimage.gaussian_filter(image.array - plain.array, 1.0 / np.asarray(grid.spacing_zyx_mm))
    near = scipy.ndimage.binary_dilation(truth.array > 0, iterations=3)
    mask = (contrast > 30) & near
    kept, _ = scipy.ndimage.label(mask)
    sizes = np.bincount(kept.ravel())
    mask &= sizes[kept] > 3
    return make_study(name, image, mask.astype(np.uint8), {1: "lesion"})


def status_of(tracks: tuple[Track, ...], ball: Ball, moved: Any, day: int) -> tuple[int, str] | None:
    """The lesion that lies at a ball on a date, and its status on the second one."""
    centre = moved.apply(ball.centre_mm) if day else np.asarray(ball.centre_mm)
    for row, each in enumerate(tracks):
        place_mm = each.sightings[day].centre_lps_mm
        if each.sightings[day].pieces and place_mm is not None and np.linalg.norm(centre - place_mm) < 6:
            return row, each.sightings[1].status
    return None


def scene(radius_mm: float, seed: int) -> tuple[list[Found], dict[str, int]]:
    """One pair of scans: its lesions that stay, and how many statuses are right and wrong."""
    rng = np.random.default_rng([seed, int(10 * radius_mm)])
    moved = turned(rng.uniform(-6, 6, 3), rng.uniform(-10, 10, 3))
    order = [CENTRES[index] for index in rng.permutation(len(CENTRES))]
    stay = [Ball(centre, radius_mm * rng.uniform(0.9, 1.1)) for centre in order[:4]]
    gone, new = Ball(order[4], radius_mm), Ball(order[5], radius_mm)
    grown = [
        Ball(ball.centre_mm, ball.radius_mm * g ** (1 / 3)) for ball, g in zip(stay, GROWTHS, strict=True)
    ]
    first, second = [*stay, gone], [*grown, new]
    studies = [date("first", first, GRIDS[0], None, seed), date("second", second, GRIDS[1], moved, seed + 1)]
    others = [
        date("first", first, GRIDS[0], None, seed + 50),
        date("second", second, GRIDS[1], moved, seed + 51),
    ]
    error = estimate_error(studies, [[others[0]], [others[1]]], "a second reader")
    placements = place(studies)
    tracks = track(studies, placements)
    measured = measure(tracks, studies, error)
    counts = {"scans": 1, "registered": int(placements[1].onto is not None), "right": 0, "wrong": 0}
    found = []
    for ball, growth in zip(stay, GROWTHS, strict=True):
        hit = status_of(tracks, ball, moved, 0)
        right = hit is not None and hit[1] in ("persistent", "split")
        counts["right" if right else "wrong"] += 1
        change = measured[hit[0]][1].since_last if hit is not None and right else None
        if change is not None:
            ratio = 1 + change.volume_percent / 100
            low, high = (np.log1p(limit / 100) for limit in change.volume_limits_percent)
            covered = low <= np.log(ratio / growth) <= high
            found.append(Found(radius_mm, growth, ratio, bool(covered)))
    for ball, day, wanted in ((gone, 0, "gone"), (new, 1, "new")):
        hit = status_of(tracks, ball, moved, day)
        counts["right" if hit is not None and hit[1] == wanted else "wrong"] += 1
    return found, counts


def row(radius_mm: float) -> dict[str, Any]:
    """All scenes of one size."""
    outcomes = [scene(radius_mm, 100 * number) for number in range(SCENES)]
    found = [each for lesions, _ in outcomes for each in lesions]
    away = np.log([each.measured_ratio / each.true_ratio for each in found])
    bias, spread = float(away.mean()), 1.96 * float(away.std(ddof=1))
    return {
        "diameter_mm": 2 * radius_mm,
        "lesions": len(found),
        "bias_percent": 100 * np.expm1(bias),
        "limits_percent": [100 * np.expm1(bias - spread), 100 * np.expm1(bias + spread)],
        "within_stated_error": sum(each.covered for each in found),
        **{
            name: sum(counts[name] for _, counts in outcomes)
            for name in ("scans", "registered", "right", "wrong")
        },
    }


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="print the table of the result that is there")
    if parser.parse_args().table:
        print(
            "| diameter | growth: bias | 95 % limits of agreement | within the stated error "
            "| registered | status right |"
        )
        print("|---|---|---|---|---|---|")
        for each in read_json(RESULT)["rows"]:
            low, high = each["limits_percent"]
            print(
                f"| {each['diameter_mm']:.0f} mm | {each['bias_percent']:+.1f} % | {low:+.0f} to {high:+.0f} % "
                f"| {each['within_stated_error']} of {each['lesions']} | {each['registered']} of {each['scans']} "
                f"| {each['right']} of {each['right'] + each['wrong']} |"
            )
        return
    if RESULT.exists():
        sys.exit(f"{RESULT} is there already; remove it to run again")
    write_json(RESULT, {**provenance(), "rows": [row(radius) for radius in RADII_MM]})


if __name__ == "__main__":
    main()
