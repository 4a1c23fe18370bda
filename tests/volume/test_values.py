"""Values that are not intensities are told from those that are."""

import numpy as np
import pytest

from focalis.volume import padding_value, percentiles_of, why_unusable


def an_image(dtype="float64"):
    return np.random.default_rng(0).normal(500, 100, (20, 20, 20)).astype(dtype)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "float32", "float64"])
def test_plain_images_are_usable_and_have_no_padding(dtype):
    assert why_unusable(an_image(dtype)) == ""
    assert padding_value(an_image(dtype)) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.finfo("f8").max, "no data"),
        (-np.finfo("f8").max, "no data"),
        (np.finfo("f4").max, "no data"),
        (1e25, "no data"),
        (1e12, "contrast"),
        (np.nan, "NaN or infinite"),
        (np.inf, "NaN or infinite"),
    ],
)
@pytest.mark.parametrize("where", [(0,), (3, 4, 5)])
def test_values_that_spoil_float32_are_refused(value, said, where):
    image = an_image()
    image[where] = value
    assert said in why_unusable(image)


def test_contrast_that_float32_rounds_away_is_refused():
    assert "contrast" in why_unusable(an_image("int64") + 2**40)
    assert "contrast" in why_unusable(an_image() * 1e-42)


def test_a_constant_image_is_refused():
    assert "same value" in why_unusable(np.full((3, 3, 3), 7, np.int16))


def test_sparse_and_binary_images_are_usable():
    sparse = np.zeros((30, 30, 30), np.float32)
    sparse[10, 10, 10] = 1
    assert why_unusable(sparse) == ""
    assert padding_value(sparse) is None


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int16", -32768), ("int16", 32767), ("uint16", 65535), ("int32", -(2**31)), ("float32", -32768)],
)
def test_the_limit_of_a_type_in_a_border_is_padding(dtype, value):
    image = an_image(dtype)
    image[:, :2] = value
    assert padding_value(image) == value


def test_air_around_a_ct_is_not_padding():
    image = np.random.default_rng(0).integers(-1024, 3000, (20, 20, 20)).astype(np.int16)
    image[:, :3] = -3024
    assert padding_value(image) is None


RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(size=(30, 31, 32)),
        RNG.lognormal(0, 4, 20_000),
        np.append(RNG.normal(size=10_000), 1e17),
        np.where(RNG.random(10_000) < 0.4, -1024, RNG.integers(-100, 100, 10_000)),
        RNG.normal(size=1000) * 1e-36,
        np.full(5, 3.25),
        np.array([2.0]),
    ],
    ids=["noise", "skewed", "an outlier", "air", "tiny", "constant", "one"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_percentiles_are_those_of_numpy(values, dtype):
    shares = (0, 1, 5, 25, 50, 75, 95, 99, 100)
    values = values.astype(dtype)
    wanted = np.percentile(values.astype(np.float64), shares)
    np.testing.assert_allclose(percentiles_of(values, shares), wanted, rtol=1e-12)
