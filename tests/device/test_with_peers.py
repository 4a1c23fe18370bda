"""The whole device against real peers: dcmtk sends, Orthanc receives, highdicom and SimpleITK read."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import highdicom
import numpy as np
import peers
import pytest
import SimpleITK as sitk
from device_work import save_tiny_model, until
from pydicom import dcmread
from structured_reports import read_report

from focalis.device.results import MOST_LISTED
from focalis.dicom import find_series, read_series, read_structures
from focalis.lesions import label_components
from focalis.workflows.predict import predict

DATA = Path(os.environ.get("FOCALIS_DATA", Path(__file__).parents[3] / "shared" / "data"))
VOLUME = highdicom.sr.CodedConcept("118565006", "SCT", "Volume")


@contextmanager
def device(arguments, folder):
    """A running `focalis serve`; its DICOM port."""
    log = folder / "device.log"
    program = "from focalis.cli.main import main; main()"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "serve", *map(str, arguments)],
            stdout=stream,
            stderr=stream,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    try:

        def ready():
            assert process.poll() is None, log.read_text()
            return "ready;" in log.read_text()

        until(ready)
        line = next(line for line in log.read_text().splitlines() if line.startswith("DICOM"))
        yield int(line.rsplit(":", 1)[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def settings(folder, dicom_port, url):
    """focalis.toml: SEG and RTSTRUCT by C-STORE, the report and the picture by STOW-RS."""
    path = folder / "focalis.toml"
    path.write_text(
        f"""
[node]
port = 0
quiet_seconds = 1
[web]
port = 0
[store]
least_free_gb = 0
[[destinations]]
name = "archive"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {dicom_port}
objects = ["seg", "rtstruct"]
[[destinations]]
name = "web"
kind = "stow"
url = "{url}/dicom-web"
objects = ["sr", "capture"]
"""
    )
    return path


def send(port, folder):
    """Send all files below a folder as a scanner would."""
    subprocess.run(
        [peers.program("storescu"), "-aec", "FOCALIS", "+sd", "+r", "127.0.0.1", str(port), str(folder)],
        check=True,
        timeout=120,
    )


def arrived(url, count):
    """The objects in Orthanc by source series and modality, once there are so many."""

    def all_of_them():
        identifiers = json.loads(peers.get(f"{url}/instances"))
        return identifiers if len(identifiers) >= count else None

    found = {}
    for identifier in until(all_of_them, 600):
        dataset = dcmread(io.BytesIO(peers.get(f"{url}/instances/{identifier}/file")))
        found[dataset.StudyInstanceUID, dataset.Modality] = dataset
    assert len(found) == count
    return found


def round_trip(tmp_path, images, window):
    """Through the device and Orthanc: what came out, beside what `focalis predict` makes of the same files."""
    series = [read_series(each) for each in find_series(images)]
    modality = series[0].header.Modality
    model = save_tiny_model(tmp_path / "tiny.safetensors", series[0].volume, *window, channel=modality)
    with peers.orthanc(tmp_path / "orthanc") as (dicom_port, url):
        config = settings(tmp_path, dicom_port, url)
        with device([model, "--config", config, "--folder", tmp_path / "store"], tmp_path) as port:
            send(port, images)
            found = arrived(url, 4 * len(series))
    predict(model, [images], tmp_path / "masks")
    predict(model, [images], tmp_path / "segs", output_format="seg")
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == len(series)
    for each in series:
        check(found, each, tmp_path)
    return found


def check(found, series, tmp_path):
    study = series.header.StudyInstanceUID
    name = series.files[0].parent.name
    expected = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "masks" / f"{name}.nii.gz")) == 1
    assert expected.any()

    segmentation = found[study, "SEG"]
    ours = dcmread(tmp_path / "segs" / f"{name}_seg.dcm")
    assert segmentation.PixelData == ours.PixelData
    # the device's object tells when it was made, so it is another one
    assert segmentation.ContentDate >= ours.ContentDate
    assert segmentation.SOPInstanceUID != ours.SOPInstanceUID
    volume = highdicom.seg.Segmentation.from_dataset(segmentation).get_volume(combine_segments=True)
    placed, grid = np.zeros_like(expected), series.volume.grid
    for index, plane in enumerate(volume.array):
        first_voxel = volume.affine[:3, 3] + index * volume.affine[:3, 0]
        along = (first_voxel - grid.origin_xyz_mm) @ grid.direction_matrix[:, 2] / grid.spacing_xyz_mm[2]
        placed[round(float(along))] = plane
    np.testing.assert_array_equal(placed, expected)

    path = tmp_path / "structures.dcm"
    found[study, "RTSTRUCT"].save_as(path)
    np.testing.assert_array_equal(read_structures(path, series)["nodule"], expected)
    areas = areas_by_slice(found[study, "RTSTRUCT"], sitk.ReadImage(tmp_path / "masks" / f"{name}.nii.gz"))
    np.testing.assert_allclose(areas, expected.sum(axis=(1, 2)), atol=1e-3)

    path = tmp_path / "report.dcm"
    found[study, "SR"].save_as(path)
    report = read_report(path)
    assert report.segmentation_uid == segmentation.SOPInstanceUID
    voxel_mm3 = float(np.prod(series.volume.grid.spacing_xyz_mm))
    components, count = label_components(expected)
    largest = np.sort(np.bincount(components[expected])[1:])[::-1][:MOST_LISTED]
    assert report.total == count
    volumes = sorted((lesion.volume_mm3 for lesion in report.lesions), reverse=True)
    np.testing.assert_allclose(volumes, largest * voxel_mm3, atol=1e-3)
    groups = highdicom.sr.srread(path).content.get_volumetric_roi_measurement_groups()
    read = [group.get_measurements(name=VOLUME)[0].value for group in groups]
    np.testing.assert_allclose(sorted(read, reverse=True), volumes)
    assert found[study, "OT"].PhotometricInterpretation == "RGB"


def areas_by_slice(structures, mask):
    """The voxels that the contours enclose in each slice of the mask, placed by SimpleITK, by the shoelace formula."""
    areas = np.zeros(mask.GetSize()[2])
    for roi in structures.ROIContourSequence:
        for contour in roi.get("ContourSequence", []):
            points = np.reshape(np.asarray(contour.ContourData, dtype=float), (-1, 3))
            x, y, z = np.transpose([mask.TransformPhysicalPointToContinuousIndex(p.tolist()) for p in points])
            np.testing.assert_allclose(z, round(z.mean()), atol=0.01)
            areas[round(z.mean())] += abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    return areas


@pytest.fixture(params=[1, pytest.param(3, marks=pytest.mark.slow)])
def hippocampi(request, tmp_path):
    """MR series, each of a study of its own."""
    folder = DATA / "dicom_hippo_crop"
    if not folder.is_dir():
        pytest.skip("dicom_hippo_crop is not there; FOCALIS_DATA names no folder of real data")
    for study in ("study1", "study2", "study3")[: request.param]:
        shutil.copytree(folder / study, tmp_path / "images" / study)
    return tmp_path / "images"


@pytest.mark.timeout(1200)
def test_what_storescu_sends_comes_back_to_orthanc_as_predict_makes_it(hippocampi, tmp_path):
    peers.require()
    round_trip(tmp_path, hippocampi, (0, 500))


@pytest.mark.timeout(3000)
@pytest.mark.filterwarnings("ignore:.*Study ID is not valid:focalis.dicom.source_identity.AttributeWarning")
@pytest.mark.parametrize(
    ("modality", "window"),
    [
        pytest.param("CT", (-1000, 1000), marks=pytest.mark.slow),
        pytest.param("MR_T1", (0, 1000), marks=pytest.mark.slow),
        pytest.param("PET", (0, 20000), marks=pytest.mark.slow),
    ],
)
def test_ct_mr_and_pet_of_a_study_come_back(tmp_path, modality, window):
    peers.require()
    if not (DATA / "dicom_sts001").is_dir():
        pytest.skip("dicom_sts001 is not there; FOCALIS_DATA names no folder of real data")
    shutil.copytree(DATA / "dicom_sts001" / modality / "image", tmp_path / "images" / modality)
    round_trip(tmp_path, tmp_path / "images", window)


@pytest.mark.slow
def test_echoscu_is_answered_and_a_tampered_model_refused(tmp_path):
    peers.require()
    model = save_tiny_model(tmp_path / "tiny.safetensors")
    config = tmp_path / "focalis.toml"
    config.write_text(
        '[node]\nport = 0\n[web]\nport = 0\n[[models]]\nname = "a"\nfile = "tiny.safetensors"\n'
    )
    with device(["--config", config, "--folder", tmp_path / "store"], tmp_path) as port:
        subprocess.run(
            [peers.program("echoscu"), "-aec", "FOCALIS", "127.0.0.1", str(port)], check=True, timeout=60
        )
    config.write_text(config.read_text() + f'sha256 = "{"0" * 64}"\n')
    model.touch()
    with (
        pytest.raises(AssertionError, match="the file was changed"),
        device(["--config", config, "--folder", tmp_path / "store"], tmp_path),
    ):
        time.sleep(0)
