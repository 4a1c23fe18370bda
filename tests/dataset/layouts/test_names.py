"""Cases and channels from file names."""

from pathlib import Path

import pytest

from focalis.dataset import group_channels
from focalis.errors import DataError


def test_images_alone_are_grouped_by_known_channels_or_four_digits() -> None:
    files = [Path(f"{stem}.nii.gz") for stem in ("a_T1", "a_FLAIR", "b_T1", "b_FLAIR")]
    assert group_channels(files, channels=["FLAIR", "T1"]) == {
        "a": {"T1": files[0], "FLAIR": files[1]},
        "b": {"T1": files[2], "FLAIR": files[3]},
    }
    assert set(group_channels(files)) == {"a_T1", "a_FLAIR", "b_T1", "b_FLAIR"}
    numbered = [Path("c_1_0000.nii.gz"), Path("c_1_0001.nii.gz"), Path("d_003.nii.gz")]
    assert group_channels(numbered) == {
        "c_1": {"0000": numbered[0], "0001": numbered[1]},
        "d_003": {"image": numbered[2]},
    }


def test_numbers_stand_for_the_known_channels_in_their_order() -> None:
    files = [Path("a_0001.nii.gz"), Path("a_0000.nii.gz"), Path("b_T1.nii.gz"), Path("b_FLAIR.mha")]
    assert group_channels(files, channels=["T1", "FLAIR"]) == {
        "a": {"FLAIR": files[0], "T1": files[1]},
        "b": {"T1": files[2], "FLAIR": files[3]},
    }
    assert group_channels(files[:1], channels=["T1"]) == {"a": {"0001": files[0]}}


def test_known_channels_are_named_in_any_capitals() -> None:
    files = [Path("p7_t1.nii.gz"), Path("p7_flair.nii.gz")]
    grouped = {"p7": {"T1": files[0], "FLAIR": files[1]}}
    assert group_channels(files, channels=["T1", "FLAIR"]) == grouped


def test_two_files_for_one_place() -> None:
    with pytest.raises(DataError, match=r"x/a_T1\.mha: stands beside a_T1\.nii\.gz"):
        group_channels([Path("x/a_T1.nii.gz"), Path("x/a_T1.mha")])
    with pytest.raises(DataError, match=r"a_0000\.nii\.gz: is channel T1 of case a, and so is a_T1\.nii\.gz"):
        group_channels([Path("a_T1.nii.gz"), Path("a_0000.nii.gz")], channels=["T1", "T2"])
