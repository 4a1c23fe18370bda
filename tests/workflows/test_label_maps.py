"""Images beside label maps, by their names."""

import pytest

from focalis.errors import DataError
from focalis.workflows.label_maps import image_of


@pytest.mark.parametrize("known", [("p1", "p1_2"), ("p1",)])
def test_a_case_whose_name_begins_another_ones_gets_its_own_image(tmp_path, known):
    for name in ("p1_2_FLAIR", "p1_2_T1", "p1_FLAIR", "p1_T1"):
        (tmp_path / f"{name}.nii.gz").touch()
    assert image_of("p1", tmp_path, known).name == "p1_FLAIR.nii.gz"
    if "p1_2" in known:
        assert image_of("p1_2", tmp_path, known).name == "p1_2_FLAIR.nii.gz"


def test_what_is_wrong_with_another_cases_images_does_not_matter(tmp_path):
    for name in ("p1.nii", "p1.nii.gz", "p2_T1.nii.gz", "p3_a.nii.gz", "p3_A.nii.gz"):
        (tmp_path / name).touch()
    assert image_of("p2", tmp_path, ("p1", "p2", "p3")).name == "p2_T1.nii.gz"
    assert image_of("p1", tmp_path, ("p1", "p2", "p3")).name == "p1.nii"


def test_an_image_of_the_very_name_goes_first_and_one_that_is_not_there_is_named(tmp_path):
    for name in ("a", "a_T1", "ab"):
        (tmp_path / f"{name}.nii.gz").touch()
    assert image_of("a", tmp_path, ("a", "ab")).name == "a.nii.gz"
    assert image_of("b", tmp_path / "ab.nii.gz", ("b",)).name == "ab.nii.gz"
    with pytest.raises(DataError, match=r"holds no image of case b; name it b\.nii\.gz"):
        image_of("b", tmp_path, ("a", "b"))
