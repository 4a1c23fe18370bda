"""What is reported as a lesion."""

import numpy as np
import pytest
from scipy import ndimage

from focalis.lesions import OperatingPoint, decide, label_components, report_lesions


def case(seed: int):
    rng = np.random.default_rng(seed)
    foreground = ndimage.gaussian_filter(rng.random((8, 14, 14)), 1.0).astype(np.float32)
    foreground = (foreground - foreground.min()) / np.ptp(foreground)
    labels = np.where(foreground >= 0.55, rng.integers(1, 3, foreground.shape), 0).astype(np.uint8)
    return labels, foreground


def slabs_of(labels, foreground):
    """Probabilities of a background and two labels, one slice at a time."""
    p = np.stack([1 - foreground, foreground * (labels != 2), foreground * (labels == 2)])
    return [(slice(z, z + 1), p[:, z : z + 1]) for z in range(len(labels))]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("minimum_mm3", "minimum_confidence"), [(0, 0), (30, 0), (0, 0.8), (12, 0.7), (1e9, 0)]
)
def test_small_and_unsure_components_go_and_the_others_stay_as_they_are(
    seed, minimum_mm3, minimum_confidence
):
    labels, foreground = case(seed)
    wanted = labels.copy()
    components, count = label_components(labels > 0)
    for number in range(1, count + 1):
        inside = components == number
        if inside.sum() * 3.0 < minimum_mm3 or foreground[inside].max() < minimum_confidence:
            wanted[inside] = 0
    point = OperatingPoint(0.55, minimum_mm3=minimum_mm3, minimum_confidence=minimum_confidence)
    found = report_lesions(slabs_of(labels, foreground), labels.shape, point, (1.0, 1.0, 3.0))
    np.testing.assert_array_equal(found.mask, wanted)
    np.testing.assert_array_equal(found.candidates, labels)
    np.testing.assert_allclose(found.foreground, foreground, atol=1e-6)


def test_a_small_core_inside_a_rim_stays():
    labels = np.full((1, 1, 9), 2, np.uint8)
    labels[0, 0, 4] = 1
    slabs, point = slabs_of(labels, np.ones((1, 1, 9), np.float32)), OperatingPoint(minimum_mm3=5)
    assert report_lesions(slabs, labels.shape, point, (1.0, 1.0, 1.0)).mask.tolist() == [
        [[2, 2, 2, 2, 1, 2, 2, 2, 2]]
    ]


def test_the_given_foreground_decides_and_the_best_label_names():
    probabilities = np.array([[0.7, 0.2], [0.1, 0.5], [0.2, 0.3]], np.float32).reshape(3, 1, 1, 2)
    assert decide(probabilities, 0.5).ravel().tolist() == [0, 1]
    assert decide(probabilities, 0.5, np.array([[[0.6, 0.4]]], np.float32)).ravel().tolist() == [2, 0]
