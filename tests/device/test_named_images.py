"""The device's files under names that mean something to a person."""

from focalis.device.named_images import link_slices, told_without
from focalis.errors import DataError


def test_slices_are_named_by_their_instance_numbers(tmp_path):
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_bytes(b"")

    links = link_slices(dict(zip(map(str, files), (7, 7, None), strict=True)), tmp_path / "links")

    assert [each.name for each in links] == ["slice 7", "slice 7 (2)", "a slice"]
    assert [each.resolve() for each in links] == [each.resolve() for each in files]
    assert list(links.values()) == files


def test_an_error_names_a_file_of_the_folder_alone(tmp_path):
    error = DataError.at(tmp_path / "slice 3", "lacks Rows", "export it again")
    assert told_without(tmp_path, error) == "slice 3: lacks Rows; export it again"
    assert told_without(tmp_path / "slice 3", error) == "lacks Rows; export it again"
    assert told_without(tmp_path / "other", error) == str(error)
    assert told_without(tmp_path, DataError("no memory")) == "no memory"
