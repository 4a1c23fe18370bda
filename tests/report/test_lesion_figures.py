"""The figures of lesions: they are drawn for little and for much, in both themes, and the page names the counts."""

import numpy as np
import pytest

from focalis.evaluation import CaseLesions, Detection, count_voxels, judge_lesions
from focalis.lesions import Candidates, OperatingPoint, find_candidates, measure_lesions
from focalis.report import DARK, LIGHT, froc_figure, operating_figure, reliability_figure, risk_figure
from focalis.report.lesion_context import lesion_context
from focalis.report.lesion_figures import class_names
from focalis.volume import Grid, Volume

PNG = b"\x89PNG\r\n\x1a\n"


def case(name: str, seed: int, lesions: int) -> CaseLesions:
    rng = np.random.default_rng(seed)
    truth, probability = np.zeros((4, 6, 120), np.uint8), np.full((4, 6, 120), 0.05)
    for start in rng.permutation(np.arange(2, 110, 12))[:lesions]:
        truth[1:3, 1:4, start : start + rng.integers(1, 7)] = 1
    probability[truth > 0] = 0.8
    probability[1:3, 1:3, 118:120] = rng.uniform(0.5, 1)
    predicted, grid = (probability >= 0.5).astype(np.uint8), Grid((120, 6, 4))
    known = measure_lesions(predicted, grid, {1: "lesion"}, probability)
    judged, _ = judge_lesions(name, Volume(truth, grid), Volume(predicted, grid), {1: "lesion"}, known=known)
    found: Candidates = find_candidates(truth > 0, predicted > 0, probability, case=name, voxel_mm3=1.0)
    counts = count_voxels(truth > 0, probability, (1.0, 1.0, 1.0))
    return CaseLesions(judged, (found,), counts, 1.5)


@pytest.mark.parametrize("lesions", [(1,), (7, 5, 0)])
def test_figures_are_drawn_for_one_scan_and_for_several_with_an_empty_one(lesions: tuple[int, ...]) -> None:
    detection = Detection.of([case(f"c{i}", i, n) for i, n in enumerate(lesions)])
    assert detection is not None
    assert detection.froc is not None
    for theme in (LIGHT, DARK):
        assert froc_figure(detection.froc, theme).startswith(PNG)
        assert reliability_figure(detection.calibration, theme).startswith(PNG)
        assert risk_figure(detection.risk, theme).startswith(PNG)


def test_the_operating_points_curves_are_drawn_with_and_without_lesions() -> None:
    curve = ((0.3, 0.5), (0.5, 0.6))
    for froc in ((), ((0.9, 0.1, 0.4), (0.0, 2.0, 0.8))):
        assert operating_figure(OperatingPoint(0.5, "chosen", curve, 0.0, 0.9, froc)).startswith(PNG)


def test_the_context_names_counts_and_leaves_out_what_is_not_known() -> None:
    cases = [case(f"c{i}", i, n) for i, n in enumerate((7, 5, 0))]
    judged = [each for found in cases for each in found.judged]
    context = lesion_context(Detection.of(cases), judged)
    assert context["detection"]["froc_note"].startswith("12 true lesions in 3 scans, 1 of them without any.")
    assert "Temperature 1.5" in context["detection"]["calibration_note"]
    titles = [title for title, _, _ in context["lesions"]]
    assert titles == [
        "Missed lesions: 0",
        "False positives: 3",
        "Predicted lesions that are right: 12",
        "True lesions that were found: 12",
    ]
    assert lesion_context(None, [])["detection"] is None


def test_size_classes_in_words() -> None:
    detection = Detection.of([case("a", 1, 9)])
    assert detection is not None
    assert detection.froc is not None
    names = class_names(detection.froc)
    assert names[0].startswith("below ")
    assert names[-1].endswith(" or more")
