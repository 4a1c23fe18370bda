"""Series of real scanners: read as SimpleITK reads them, and as the reference images say."""

import numpy as np
import pytest
import SimpleITK as sitk

from focalis.dicom import find_series, only_series, read_series
from focalis.volume import from_sitk, read_volume

STUDIES = [
    ("dicom_sts001/CT/image", 59, np.int16),
    ("dicom_sts001/MR_T1/image", 59, np.int16),
    ("dicom_sts001/PET/image", 59, np.float32),
    pytest.param("dicom_qin_headneck_pet/image", 545, np.float32, marks=pytest.mark.slow),
    ("dicom_hippo_crop/study1", 32, np.int16),
    ("dicom_hippo_crop/study2", 35, np.int16),
    ("dicom_hippo_crop/study3", 40, np.int16),
    ("dicom_seg_bitpack_phantom/image", 3, np.int32),
]


@pytest.mark.parametrize(("name", "count", "dtype"), STUDIES)
def test_real_series_read_as_simpleitk_reads_them(real_data, name, count, dtype) -> None:
    folder = real_data / name
    files = only_series(folder)
    assert len(files.files) == count
    series = read_series(files)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), files.uid)
    peer = from_sitk(sitk.ReadImage(names))
    assert series.volume.array.dtype == dtype
    np.testing.assert_array_equal(series.volume.array, peer.array.astype(dtype))
    assert series.volume.grid.differences(peer.grid) == []
    assert tuple(str(file) for file in series.files) == names


@pytest.mark.parametrize(("modality", "folder"), [("CT", "CT"), ("MR", "MR_T1"), ("PT", "PET")])
def test_the_sarcoma_study_equals_its_reference_images(real_data, modality, folder) -> None:
    found = {files.modality: files for files in find_series(real_data / "dicom_sts001")}
    assert sorted(found) == ["CT", "MR", "PT"]
    volume = read_series(found[modality]).volume
    reference = read_volume(real_data / "dicom_sts001" / "nifti" / f"{folder}_image.nii.gz")
    np.testing.assert_allclose(volume.array, reference.array, rtol=2e-7 if modality == "PT" else 0)
    assert volume.grid.differences(reference.grid) == []
