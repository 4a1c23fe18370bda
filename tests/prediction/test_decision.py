"""From probabilities to labels."""

import numpy as np

from focalis.prediction import decide


def test_foreground_where_its_probability_reaches_the_threshold():
    background = np.array([0.9, 0.75, 0.5, 0.1], dtype=np.float32).reshape(1, 2, 2)
    indices = decide(np.stack([background, 1 - background]), 0.25)
    np.testing.assert_array_equal(indices, [[[0, 1], [1, 1]]])
    assert indices.dtype == np.uint8


def test_then_the_likeliest_label_though_the_background_is_likelier():
    p = np.array([[0.6, 0.8, 0.2, 0.3], [0.1, 0.2, 0.4, 0.35], [0.3, 0.0, 0.4, 0.35]], dtype=np.float32)
    np.testing.assert_array_equal(decide(p.reshape(3, 1, 2, 2), 0.3), [[[2, 0], [1, 1]]])
