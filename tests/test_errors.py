"""What a batch says of a case that raised an error."""

import errno
from pathlib import Path

import pytest

from focalis import errors
from focalis.errors import DataError, ModelError, UsageError, about, not_there, refusal, refused


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DataError("a.nii: is torn; copy it again"), "a.nii: is torn; copy it again"),
        (MemoryError(), "x.nii: there is not enough memory for it (MemoryError);"),
        (
            RuntimeError("CUDA out of memory. Tried"),
            "x.nii: there is not enough memory for it (RuntimeError: CUDA",
        ),
        (
            RuntimeError("std::bad_alloc"),
            "x.nii: there is not enough memory for it (RuntimeError: std::bad_alloc);",
        ),
        (OSError(errno.EIO, "Input/output error"), "x.nii: cannot be read or written (Input/output error);"),
        (
            RuntimeError("itk::ERROR:\n  two\n lines"),
            "x.nii: cannot be processed (RuntimeError: itk::ERROR: two lines);",
        ),
        (KeyError("spacing"), "x.nii: cannot be processed (KeyError: 'spacing');"),
        (RecursionError(), "x.nii: cannot be processed (RecursionError);"),
    ],
)
def test_the_line_names_the_file_and_the_type_of_error(error, said):
    line = refusal(error, "x.nii")
    assert line.startswith(said)
    assert "\n" not in line


def test_a_long_message_is_cut_short():
    assert len(refusal(ValueError("x" * 5000), "a.nii")) < 500


def test_an_error_about_a_file_keeps_path_fault_and_advice_beside_its_line():
    error = DataError.at(Path("a.nii"), "is empty", "export it again")
    assert str(error) == "a.nii: is empty; export it again"
    assert (error.path, error.fault, error.advice) == (Path("a.nii"), "is empty", "export it again")
    assert str(ModelError.at("b", "is old")) == "b: is old"
    assert DataError("whatever: it says").path is None


def test_errors_that_are_about_no_file_are_given_one_and_keep_their_type():
    with pytest.raises(ModelError, match=r"^scan\.nii: wants two channels; give both$"), about("scan.nii"):
        raise ModelError("wants two channels; give both")
    with pytest.raises(DataError, match=r"^mask\.nii: is full$"), about("scan.nii"):
        raise DataError.at("mask.nii", "is full")
    with pytest.raises(DataError) as caught, about("scan.nii"):
        raise DataError.of_lines(["slice 1 is empty", "slice 3 is empty"])
    assert caught.value.lines == ("scan.nii: slice 1 is empty", "scan.nii: slice 3 is empty")


def test_a_path_that_is_not_there_is_reported_with_its_nearest_sibling(tmp_path):
    (tmp_path / "labels").mkdir()
    assert str(not_there(tmp_path / "lables", "give labels")).endswith("give labels; did you mean 'labels'?")
    assert str(not_there(tmp_path / "none" / "labels", "give labels")).endswith("give labels")


def test_beside_an_unreadable_or_endless_folder_nothing_is_proposed(tmp_path, monkeypatch):
    def endless(folder):
        yield from (folder / f"case{number}" for number in range(errors.MOST_NAMES))
        raise AssertionError("looked at too many")

    def forbidden(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    for listing in (endless, forbidden):
        monkeypatch.setattr(Path, "iterdir", listing)
        assert str(not_there(tmp_path / "lables", "give labels")).endswith("give labels")


@pytest.mark.parametrize(
    "error", [KeyError("x"), RecursionError(), MemoryError(), AssertionError(), OSError(5, "I/O")]
)
def test_what_a_library_raises_refuses_the_file(error):
    with pytest.raises(DataError) as caught, refused("scan.nii"):
        raise error
    assert str(caught.value) == refusal(error, "scan.nii")


def test_errors_of_ones_own_and_ctrl_c_pass_as_they_are():
    for error in (ModelError("wants two channels"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, refused("scan.nii"):
            raise error
        assert caught.value is error


def test_an_error_of_several_faults_has_a_line_for_each():
    error = DataError.of_lines(["a: is empty", "b: is empty", "a: is empty"])
    assert error.lines == ("a: is empty", "b: is empty")
    assert str(error) == "a: is empty\nb: is empty"
    assert DataError.at("a", "is empty").lines == ("a: is empty",)


def test_the_command_line_tells_an_error_by_its_option_also_with_a_file_before_it():
    with pytest.raises(UsageError) as caught, about("a.nii"):
        raise UsageError.of_option("too much; leave refine out", "too much; leave --refine out")
    assert str(caught.value) == "a.nii: too much; leave refine out"
    assert caught.value.command_lines == ("a.nii: too much; leave --refine out",)
    assert UsageError.of_keyword("at: none").command_lines == ("--at: none",)
    assert UsageError("plain").command_lines == ("plain",)
