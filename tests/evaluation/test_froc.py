"""FROC: against matching the filtered masks at every cutoff, and bootstrap bands with a known answer."""

import csv
import io

import numpy as np
import pytest
from scipy import ndimage

from focalis.evaluation import bands_csv, froc, froc_csv
from focalis.evaluation.froc import RATES, size_classes
from focalis.lesions import Candidates, find_candidates, label_components, match_lesions


def scan(seed: int, empty: bool = False):
    """Truth, predicted mask and probability of a scan with several lesions, some missed and some invented."""
    rng = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(rng.random((10, 14, 16)), 0.9) > 0.58
    truth &= not empty
    blur = ndimage.gaussian_filter(truth.astype(np.float32), 0.7)
    probability = np.clip(blur + 0.9 * ndimage.gaussian_filter(rng.random(truth.shape), 0.9) - 0.2, 0, 1)
    return truth, probability >= 0.3, probability


def candidates_of(name: str, parts, voxel_mm3: float = 2.0) -> Candidates:
    truth, predicted, probability = parts
    return find_candidates(truth, predicted, probability, case=name, voxel_mm3=voxel_mm3)


@pytest.fixture(scope="module")
def scans():
    return {f"s{i}": scan(i, empty=i == 3) for i in range(5)}


def test_every_cutoff_is_what_the_filtered_masks_give(scans) -> None:
    curve = froc([candidates_of(name, parts) for name, parts in scans.items()])
    assert curve is not None
    there = sum(label_components(truth)[1] for truth, _, _ in scans.values())
    assert (curve.lesions, curve.scans, curve.empty_scans) == (there, 5, 1)
    assert len(curve.points) > 10
    borders = [upper for upper, _ in curve.classes if upper is not None]
    for point in curve.points[:: len(curve.points) // 8]:
        hits, false, by_class = 0, {}, np.zeros(len(curve.classes))
        for name, (truth, predicted, probability) in scans.items():
            components, count = label_components(predicted)
            kept = predicted.copy()
            for number in range(1, count + 1):
                if probability[components == number].max() < point.confidence:
                    kept[components == number] = False
            matching = match_lesions(truth, kept)
            hits += len(matching.pairs)
            false[name] = len(matching.unmatched_predicted)
            sizes = np.bincount(label_components(truth)[0].ravel()) * 2.0
            for i, _, _ in matching.pairs:
                by_class[np.digitize(sizes[i], borders)] += 1
        assert point.sensitivity == pytest.approx(hits / there)
        assert point.fp_per_scan == pytest.approx(sum(false.values()) / 5)
        assert point.fp_per_empty_scan == false["s3"]
        assert point.fp_per_lesion_scan == pytest.approx((sum(false.values()) - false["s3"]) / 4)
        assert point.empty_scans_alarmed == (false["s3"] > 0)
        counts = np.array([n for _, n in curve.classes])
        np.testing.assert_allclose(np.array(point.by_class, float) * counts, by_class)


def test_the_curve_rises_and_is_read_off_its_points(scans) -> None:
    curve = froc([candidates_of(name, parts) for name, parts in scans.items()])
    assert curve is not None
    values = [(p.fp_per_scan, p.sensitivity) for p in curve.points]
    assert values == sorted(values)
    for rate in curve.rates:
        best = max((s for fp, s in values if fp <= rate.fp_per_scan + 1e-9), default=0.0)
        assert rate.sensitivity == pytest.approx(best)
        assert rate.low is not None
        assert rate.high is not None
        assert rate.low <= rate.high


def test_a_size_class_has_the_curve_and_the_band_of_its_own_lesions(scans) -> None:
    curve = froc([candidates_of(name, parts) for name, parts in scans.items()])
    assert curve is not None
    for kind, rates in enumerate(curve.class_rates):
        values = [(p.fp_per_scan, p.by_class[kind]) for p in curve.points]
        for rate in rates:
            best = max((s for fp, s in values if fp <= rate.fp_per_scan + 1e-9), default=0.0)
            assert rate.sensitivity == pytest.approx(best)
            assert rate.low <= rate.sensitivity <= rate.high
    rows = list(csv.DictReader(io.StringIO(bands_csv(curve))))
    assert [float(row["fp_per_scan"]) for row in rows] == [rate.fp_per_scan for rate in curve.rates]
    assert float(rows[-1]["high_class_2"]) == curve.class_rates[1][-1].high


def test_classes_pooled_are_the_whole_curve(scans) -> None:
    curve = froc([candidates_of(name, parts) for name, parts in scans.items()])
    assert curve is not None
    counts = np.array([count for _, count in curve.classes])
    for number, rate in enumerate(curve.rates):
        found = sum(
            count * rates[number].sensitivity for count, rates in zip(counts, curve.class_rates, strict=True)
        )
        assert found / counts.sum() == pytest.approx(rate.sensitivity)


def test_equal_patients_give_a_band_without_width_and_one_patient_none() -> None:
    parts = scan(1)
    curve = froc([candidates_of(name, parts) for name in "abc"])
    assert curve is not None
    assert all(rate.low == rate.high == pytest.approx(rate.sensitivity) for rate in curve.rates)
    alone = froc([candidates_of(name, parts) for name in "abc"], patients=dict.fromkeys("abc", "one"))
    assert alone is not None
    assert all(rate.low is rate.high is None for rate in alone.rates)


def test_the_band_of_two_unlike_patients_spans_both() -> None:
    """One patient's lesion is found without any false positive, the other's is not: a quarter of the draws each."""
    truth = np.zeros((3, 3, 20), bool)
    truth[1, 1, 2:5] = True
    found, missed = (
        find_candidates(truth, mask, np.full(truth.shape, 0.9), case=name, voxel_mm3=1.0)
        for name, mask in (("found", truth), ("missed", np.zeros_like(truth)))
    )
    curve = froc([found, missed])
    assert curve is not None
    assert [(r.sensitivity, r.low, r.high) for r in curve.rates] == [(0.5, 0.0, 1.0)]
    assert curve.rates[0].fp_per_scan == RATES[0]


def test_labels_of_a_scan_are_pooled_and_nothing_true_gives_no_curve() -> None:
    parts = scan(2)
    one, two = froc([candidates_of("a", parts)]), froc([candidates_of("a", parts), candidates_of("a", parts)])
    assert one is not None
    assert two is not None
    assert two.scans == 1
    assert two.points[-1].fp_per_scan == 2 * one.points[-1].fp_per_scan
    assert two.points[-1].sensitivity == one.points[-1].sensitivity
    assert froc([candidates_of("a", scan(3, empty=True))]) is None


def test_size_classes_hold_about_as_many_lesions_each() -> None:
    borders = size_classes(np.arange(1.0, 31.0))
    counts = np.bincount(np.digitize(np.arange(1.0, 31.0), borders))
    assert counts.size == 3
    assert np.ptp(counts) <= 2
    assert size_classes(np.ones(5)) == ()


def test_the_table_has_a_row_per_cutoff(scans) -> None:
    curve = froc([candidates_of(name, parts) for name, parts in scans.items()])
    assert curve is not None
    rows = list(csv.DictReader(io.StringIO(froc_csv(curve))))
    assert len(rows) == len(curve.points)
    assert float(rows[-1]["sensitivity"]) == curve.points[-1].sensitivity
    assert {"sensitivity_class_1", "fp_per_empty_scan"} <= set(rows[0])
