"""The device's files under names that mean something to a person."""

from device_work import GRID, block
from pydicom import dcmread

from focalis.device.named_images import link_slices, told_without
from focalis.errors import DataError


def test_slices_are_named_by_their_instance_numbers(write_series, tmp_path):
    files = write_series(tmp_path / "scan", block(), GRID)
    files[1].write_bytes(files[0].read_bytes())
    files[2].write_bytes(b"no DICOM")

    number = dcmread(files[0]).InstanceNumber

    links = link_slices(files, tmp_path / "links")

    assert [each.name for each in links][:3] == [f"slice {number}", f"slice {number} (2)", "a slice"]
    assert [each.resolve() for each in links] == [each.resolve() for each in files]
    assert list(links.values()) == files


def test_an_error_names_a_file_of_the_folder_alone(tmp_path):
    error = DataError.at(tmp_path / "slice 3", "lacks Rows", "export it again")
    assert told_without(tmp_path, error) == "slice 3: lacks Rows; export it again"
    assert told_without(tmp_path / "slice 3", error) == "lacks Rows; export it again"
    assert told_without(tmp_path / "other", error) == str(error)
    assert told_without(tmp_path, DataError("no memory")) == "no memory"
