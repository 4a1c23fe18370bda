"""Connected components."""

import numpy as np
import pytest

from focalis.errors import UsageError
from focalis.lesions import highest, label_components


@pytest.mark.parametrize(("connectivity", "expected"), [(6, 3), (18, 2), (26, 1)])
def test_neighbours_across_face_edge_and_corner(connectivity: int, expected: int) -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = True
    mask[0, 1, 1] = True  # shares an edge with the first
    mask[1, 2, 2] = True  # shares a corner with the second
    labelled, count = label_components(mask, connectivity)
    assert count == expected
    assert labelled.dtype == np.int32
    assert set(np.unique(labelled[mask])) == set(range(1, expected + 1))
    assert not labelled[~mask].any()


def test_empty_mask_has_no_components() -> None:
    labelled, count = label_components(np.zeros((2, 3, 4), bool))
    assert count == 0
    assert labelled.shape == (2, 3, 4)


def test_unknown_connectivity_is_refused() -> None:
    with pytest.raises(UsageError, match="choose 6, 18 or 26"):
        label_components(np.zeros((2, 2, 2), bool), 8)


def test_the_highest_value_of_every_lesion_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(6)
    lesions, count = label_components(rng.random((12, 13, 14)) > 0.95)
    probability = rng.random(lesions.shape, dtype=np.float32)
    wanted = [probability[lesions == number].max() for number in range(1, count + 1)]
    assert count > 20
    np.testing.assert_array_equal(highest(probability, lesions, count), wanted)
    assert highest(probability, np.zeros_like(lesions), 0).shape == (0,)
