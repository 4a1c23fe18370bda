"""A model file that an earlier revision wrote still loads, and gives the mask that it gave then."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from focalis.model import load_model
from focalis.prediction import Settings, segment
from focalis.volume import Grid, Volume

FILE = Path(__file__).parent / "written_before.safetensors"
"""Written by revision f6a145a: untrained, two labels, an operating point that drops lesions, a temperature."""


@pytest.fixture
def image():
    noise = np.random.default_rng(5).normal(size=(12, 20, 24)).astype(np.float32)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    return Volume((2 * smooth / smooth.std()).astype(np.float32), Grid((24, 20, 12), (1.0, 1.0, 2.0)))


def test_its_header_is_read_whole():
    model = load_model(FILE)
    point = model.operating_point
    assert (point.minimum_mm3, point.temperature, point.lesions, point.found) == (40.0, 1.25, 5, 4)
    assert point.froc == ((0.9, 0.5, 0.4), (0.5, 1.0, 0.8))
    assert model.plan.labels == {1: "core", 4: "rim"}
    assert model.eight_bit is not None


def test_its_mask_is_what_it_was(image):
    found = segment(load_model(FILE), [image], Settings(runtime="torch", precision="float32"))
    values, counts = np.unique(found.mask, return_counts=True)
    assert values.tolist() == [0, 1, 4]
    # The last digits of a probability differ between processors.
    np.testing.assert_allclose(counts, [4307, 1207, 246], atol=5)
    np.testing.assert_allclose(found.probability.mean(), 0.81817, atol=1e-4)
