"""The scope of a model: held-out images of its own kind lie inside, images of other kinds outside."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from focalis.dataset import open_dataset, read_splits
from focalis.planning import Normalisation, Scope, describe, join_scopes, learn_scope, outside
from focalis.planning.scope import Usual
from focalis.volume import Grid, Volume, read_volume

DATA = Path(os.environ.get("FOCALIS_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "lidc_nodules").is_dir(), reason="the public data sets are not here"
)
CT, MR = [Normalisation(kind="window", low=-1000, high=400)], [Normalisation()]


def scan(seed, spacing=(1.0, 1.0, 1.0), shape=(24, 28, 32)):
    """A smooth body, brighter at its lower end, in air; values of a CT."""
    rng = np.random.default_rng(seed)
    z, y, x = (
        np.linspace(-1, 1, size).reshape([-1 if i == axis else 1 for i in range(3)])
        for axis, size in enumerate(shape)
    )
    body = (z**2 + y**2 + x**2) < 0.9 + 0.1 * rng.random()
    soft = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    array = np.where(body, 40 + 300 * soft - 60 * z, -1000) + rng.normal(size=shape) * 15
    grid = Grid(shape[::-1], spacing[::-1])
    return Volume(ndimage.gaussian_filter(array, 0.7).astype(np.float32), grid)


@pytest.fixture(scope="module")
def scopes():
    scans = [scan(seed) for seed in range(12)]
    return {how[0].kind: learn_scope([describe([one], how) for one in scans]) for how in (CT, MR)}


def said(scopes, volume, how=CT):
    return outside(scopes[how[0].kind], describe([volume], how), ["CT"])


def changed(volume, array):
    return Volume(np.asarray(array, np.float32), volume.grid)


@pytest.mark.parametrize("how", [CT, MR], ids=["with a unit", "without"])
def test_another_scan_of_the_kind_lies_inside(scopes, how):
    assert [said(scopes, scan(seed), how) for seed in range(100, 112)] == [()] * 12


@pytest.mark.parametrize("how", [CT, MR], ids=["with a unit", "without"])
@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda a: a.max() + a.min() - a, "laid out unlike"),
        (lambda a: np.random.default_rng(0).normal(a.mean(), a.std(), a.shape), "correlate"),
        (lambda a: np.zeros_like(a) + 7, "correlate|laid out"),
        (lambda a: np.roll(a, a.shape[2] // 2, axis=2), "laid out unlike"),
    ],
    ids=["inverted", "noise", "constant", "another part of the body"],
)
def test_what_is_no_such_scan_lies_outside(scopes, how, change, word):
    volume = scan(200)
    found = said(scopes, changed(volume, change(volume.array)), how)
    assert found
    assert any(part in phrase for part in word.split("|") for phrase in found), found


def test_units_count_only_where_there_are_any(scopes):
    volume = scan(200)
    shifted = changed(volume, volume.array * 0.5 + 600)
    assert said(scopes, shifted, MR) == ()
    assert any("percentile of CT at" in phrase for phrase in said(scopes, shifted, CT))


def test_spacing_and_field_of_view_are_reported_in_mm(scopes):
    found = said(scopes, scan(200, spacing=(3.0, 1.0, 1.0)))
    assert "spacing of 3 mm along z (usual is 0.667 to 1.5)" in found
    assert "field of view of 72 mm along z (usual is 16 to 36)" in found
    assert said(scopes, scan(200, spacing=(1.2, 0.9, 1.0))) == ()


def test_what_lies_on_a_limit_lies_inside():
    """All crops are of 51 mm, so the limits are 51 / 1.5 and 51 * 1.5 mm; the lower one would be rounded up."""
    cube = (51, 51, 51)
    scope = learn_scope([describe([scan(seed, shape=cube)], CT) for seed in range(5)])
    for usual in scope.usual:
        if usual.name.startswith("extent"):
            assert usual.low <= np.log(34)
            assert usual.high >= np.log(76.5)
    for spacing in (2 / 3, 1.5):
        found = said({"window": scope}, scan(5, (spacing,) * 3, cube))
        assert not [phrase for phrase in found if phrase.startswith(("field of view", "spacing"))]
    (smaller,) = [
        phrase
        for phrase in said({"window": scope}, scan(5, shape=(51, 51, 33)))
        if phrase.startswith("field of view")
    ]
    assert smaller == "field of view of 33 mm along x (usual is 34 to 76.5)"


def test_a_limit_that_an_older_model_rounded_inwards_is_still_inside():
    rounded = Usual(name="extent 2", low=3.5264, high=4.3373)
    assert rounded.low > np.log(34)
    scope = Scope(cases=104, usual=(rounded,), thumbnails=())
    assert outside(scope, {"extent": np.log([51, 51, 34])}, ["image"]) == ()
    (phrase,) = outside(scope, {"extent": np.log([51, 51, 33.97])}, ["image"])
    assert phrase == "field of view of 33.97 mm along x (usual is 34 to 76.5)"


def test_inverted_fine_structures_lie_outside_also_where_bright_and_dark_tissue_share_the_image():
    """Layout and histogram look alike inverted: two halves of either kind, at random; vessels are bright in both."""

    def tissue(seed):
        rng = np.random.default_rng(seed)
        halves = 400 * np.sign(np.linspace(-1, 1, 24))[:, None, None] * rng.choice((-1, 1))
        vessels = ndimage.gaussian_filter((rng.random((24, 28, 32)) < 0.02) * 4000.0, 0.8)
        return Volume((halves + vessels).astype(np.float32), Grid((32, 28, 24)))

    scope = learn_scope([describe([tissue(seed)], MR) for seed in range(12)])
    other = tissue(100)
    assert outside(scope, describe([other], MR), ["CT"]) == ()
    said = outside(scope, describe([changed(other, -other.array)], MR), ["CT"])
    assert any(phrase.startswith("fine structures of CT are darker than usual") for phrase in said), said


def test_the_file_along_other_axes_is_the_same_image(scopes):
    volume = scan(200)
    grid = Grid(
        volume.grid.size_xyz, direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0), origin_xyz_mm=(31.0, 27.0, 0.0)
    )
    assert said(scopes, Volume(volume.array[:, ::-1, ::-1].copy(), grid)) == ()


@pytest.mark.parametrize("depth", [1, 3, 20])
def test_polarity_is_the_skewness_of_an_image_less_its_surroundings(depth):
    image = np.random.default_rng(0).lognormal(0, 2, (depth, 24, 17)).astype(np.float32)
    (found,) = describe([Volume(image, Grid(image.shape[::-1], (1.0, 1.0, 1.0)))], MR)["polarity 0"]
    low, high = np.percentile(image, (1, 99))
    clipped = np.clip(image, low, high)
    fine = clipped - ndimage.uniform_filter(clipped, 5, mode="nearest")
    low, middle, high = np.percentile(fine, (5, 50, 95))
    assert found == pytest.approx((high + low - 2 * middle) / (high - low), abs=1e-5)


def test_a_handful_of_cases_knows_no_scope():
    assert learn_scope([describe([scan(seed)], CT) for seed in range(4)]) is None


def test_an_ensemble_knows_what_any_member_knows(scopes):
    other = learn_scope([describe([scan(seed, spacing=(3.0, 1.0, 1.0))], CT) for seed in range(12)])
    both = join_scopes([scopes["window"], other])
    for volume in (scan(200), scan(200, spacing=(3.0, 1.0, 1.0))):
        assert outside(both, describe([volume], CT), ["CT"]) == ()
    assert join_scopes([scopes["window"], None]) is None


def test_a_scope_survives_json(scopes):
    assert Scope.model_validate(json.loads(scopes["window"].model_dump_json())) == scopes["window"]


def real(name, case):
    return describe([case.read_images()[0]], CT if name == "lidc_nodules" else MR)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("lidc_nodules", 2), ("msd_hippocampus", 2)])
def test_held_out_real_cases_hardly_ever_lie_outside(name, most):
    data = open_dataset(DATA / name)
    described = {case.name: real(name, case) for case in data.cases}
    alarms = []
    for split in read_splits(DATA / name / "splits_5fold.json"):
        scope = learn_scope([described[case] for case in split.train])
        alarms += [case for case in split.val if outside(scope, described[case], ["image"])]
    assert len(alarms) <= most, alarms


@needs_data
def test_another_modality_and_another_part_of_the_body_lie_outside():
    nodules = [real("lidc_nodules", case) for case in open_dataset(DATA / "lidc_nodules").cases[:24]]
    scope = learn_scope(nodules)
    brain = open_dataset(DATA / "msd_hippocampus").cases[0].read_images()
    assert outside(scope, describe(brain, CT), ["CT"])
    sarcoma = read_volume(DATA / "dicom_sts001" / "nifti" / "CT_image.nii.gz")
    assert outside(scope, describe([sarcoma], CT), ["CT"])
    inverted = [
        changed(v, v.array.max() + v.array.min() - v.array.astype(float))
        for v in open_dataset(DATA / "lidc_nodules").cases[30].read_images()
    ]
    assert outside(scope, describe(inverted, CT), ["CT"])


@needs_data
def test_an_inverted_nodule_lies_outside():
    """Tissue and air change places, and both occur: it is the vessels that are bright in every lung."""
    cases = open_dataset(DATA / "lidc_nodules").cases
    scope = learn_scope([real("lidc_nodules", case) for case in cases[:36]])
    inverted = [
        changed(v, v.array.max() + v.array.min() - v.array.astype(float))
        for case in cases[60:84]
        for v in case.read_images()
    ]
    found = [bool(outside(scope, describe([volume], CT), ["CT"])) for volume in inverted]
    assert sum(found) >= 0.9 * len(found), sum(found)
