"""What a batch says of a case that raised an error."""

import errno

import pytest

from focalis.errors import DataError, refusal


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DataError("a.nii: is torn; copy it again"), "a.nii: is torn; copy it again"),
        (MemoryError(), "x.nii: there is not enough memory for it (MemoryError);"),
        (
            RuntimeError("CUDA out of memory. Tried"),
            "x.nii: there is not enough memory for it (RuntimeError: CUDA",
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
