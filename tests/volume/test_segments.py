"""Names and colours for viewers, read back by the viewers' own conventions."""

import re

import numpy as np
import pytest
import slicerio

from focalis.colours import LABEL_COLOURS, label_colour
from focalis.volume import Grid, Volume, itksnap_labels, read_segments, read_volume, write_volume

NAMES = {9: "Ödem, links", 2: "core\nof it", 300: 'the "rest"'}
GRID = Grid((4, 5, 6), (0.7, 0.8, 2.5), (10.0, -20.0, 30.0), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))


def label_map() -> Volume:
    values = np.random.default_rng(0).choice([0, *NAMES], GRID.shape_zyx).astype(np.uint16)
    return Volume(values, GRID)


@pytest.mark.parametrize("name", ["a.seg.nrrd", "b.SEG.nhdr"])
def test_slicers_own_package_reads_names_colours_and_voxels(tmp_path, name):
    label = label_map()
    write_volume(label, tmp_path / name, {**NAMES, 9: "oedema, left"})  # it drops what is not ASCII
    found = slicerio.read_segmentation(str(tmp_path / name))
    assert [(each["labelValue"], each["name"], each["layer"]) for each in found["segments"]] == [
        (2, "core of it", 0),
        (9, "oedema, left", 0),
        (300, 'the "rest"', 0),
    ]
    for place, each in enumerate(found["segments"]):
        np.testing.assert_allclose(np.multiply(each["color"], 255), label_colour(place), atol=1e-3)
    np.testing.assert_array_equal(found["voxels"], label.array.transpose())
    assert "Binary labelmap" in found["containedRepresentationNames"]
    corner = found["ijkToLPS"] @ [3, 0, 5, 1]
    np.testing.assert_allclose(corner[:3], [10.0, -20.0 + 3 * 0.7, 30.0 + 5 * 2.5], atol=1e-6)


def test_it_is_read_back_by_the_names_it_was_given(tmp_path):
    label = label_map()
    write_volume(label, tmp_path / "a.seg.nrrd", NAMES)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.seg.nrrd").array, label.array)
    assert {each.value: each.name for each in read_segments(tmp_path / "a.seg.nrrd")} == {
        2: "core of it",
        9: "Ödem, links",
        300: 'the "rest"',
    }


def test_other_formats_and_names_bear_no_segments(tmp_path):
    for name in ("a.nrrd", "a.nii.gz", "a.mha"):
        write_volume(label_map(), tmp_path / name, NAMES)
        assert read_segments(tmp_path / name) == ()


def test_the_label_description_has_a_row_of_eight_fields_per_label():
    text = itksnap_labels({**NAMES, 70000: "beyond ITK-SNAP"})
    rows = [line for line in text.splitlines() if not line.startswith("#")]
    fields = [
        re.fullmatch(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+(\d)\s+(\d)\s+"([^"]*)"', row)
        for row in rows
    ]
    assert all(fields)
    values = [tuple(field.groups()) for field in fields]
    red, green, blue = (str(part) for part in LABEL_COLOURS[2])
    assert values[0] == ("0", "0", "0", "0", "0", "0", "0", "Clear Label")
    assert values[-1] == ("300", red, green, blue, "1", "1", "1", "the 'rest'")
    assert len(values) == 4


def test_colours_differ_and_recur():
    assert len(set(LABEL_COLOURS)) == len(LABEL_COLOURS)
    assert label_colour(len(LABEL_COLOURS) + 1) == label_colour(1)
