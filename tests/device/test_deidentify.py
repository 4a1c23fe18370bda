"""De-identified copies: nothing of the patient is left, references stay whole, and nothing else is ever sent."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from device_work import GRID, block, config, destination, keep_files, pacs
from pydicom import Dataset, dcmread

from focalis.device import outgoing
from focalis.device.config import Destination
from focalis.device.deidentify import Pseudonyms, copies, deidentify, is_deidentified
from focalis.device.jobs import Jobs
from focalis.device.results import make_results
from focalis.device.store import Store
from focalis.dicom import Origin, read_segmentation, read_series, read_structures
from focalis.errors import DataError
from focalis.files import sha256_of
from focalis.identity import ModelIdentity

KEY = Pseudonyms(b"k" * 32)
NAME, NUMBER = "Gröbchen^Zsazsa", "Kennung-K"


def identify(path, **more):
    """Fill an image with what names a patient, in places that the profile lists and in others."""
    data = dcmread(path)
    data.SpecificCharacterSet = "ISO_IR 192"
    data.PatientName, data.PatientID, data.PatientBirthDate = NAME, NUMBER, "19610523"
    data.StudyDate, data.AcquisitionDateTime, data.StudyTime = "20240229", "20240229101112.5", "101112"
    data.InstitutionName, data.ReferringPhysicianName = "Quux Clinic", "Xyzzy^Ada"
    data.PatientComments = data.StudyDescription = "seen by Xyzzy"
    data.SequenceName = "for Zsazsa"  # not in the table
    data.add_new(0x60003000, "OB", b"\1\2")
    data.private_block(0x0099, "ACME", create=True).add_new(1, "LO", "Zsazsa")
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99X", "Zsazsa special"
    item.OperatorsName = "Nurse^Quux"
    data.RequestAttributesSequence = [item]
    for keyword, value in more.items():
        setattr(data, keyword, value)
    data.save_as(path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An identified series and the results made of it, by kind."""
    from dicom_fixtures import _write_series

    folder = tmp_path_factory.mktemp("made")
    for path in _write_series(folder / "scan", block(), GRID):
        identify(path)
    files = sorted((folder / "scan").rglob("*.dcm"))
    series = read_series(files)
    label = (series.volume.array > 500).astype(np.uint8)
    (folder / "results").mkdir()
    found = make_results(
        label, {1: "nodule"}, series, folder / "results", Origin(ModelIdentity("m" * 64), "1"), supersedes={}
    )
    return files, {each.kind: folder / "results" / each.file for each in found}, label


def copy_of(path, tmp_path, name="copy.dcm", dates="remove", own=False):
    deidentify(path, tmp_path / name, KEY, dates, own)
    return tmp_path / name


def all_text(path):
    """Everything readable in a file."""
    return dcmread(path).to_json() + str(dcmread(path)) + path.read_bytes().decode("utf-8", "replace")


@pytest.mark.parametrize("dates", ["remove", "shift", "keep"])
def test_nothing_of_the_patient_is_left_in_an_image_or_a_result(made, tmp_path, dates):
    files, results, _ = made
    for number, (path, own) in enumerate(
        [(files[0], False), *((results[k], True) for k in ("seg", "rtstruct", "sr"))]
    ):
        text = all_text(copy_of(path, tmp_path, f"{number}.dcm", dates, own))
        for word in ("Gröbchen", "Zsazsa", "Kennung", "19610523", "Quux", "Xyzzy", "Ada", "ACME"):
            assert word not in text, (path.name, word)
        assert ("20240229" in text) == (dates == "keep")
        original = dcmread(path)
        for uid in (original.SOPInstanceUID, original.SeriesInstanceUID, original.StudyInstanceUID):
            assert uid not in text


def test_the_copy_says_how_it_was_made(made, tmp_path):
    files, results, _ = made
    image = dcmread(copy_of(files[0], tmp_path, dates="shift"))
    report = dcmread(copy_of(results["sr"], tmp_path, own=True))
    assert (image.PatientIdentityRemoved, image.LongitudinalTemporalInformationModified) == (
        "YES",
        "MODIFIED",
    )
    assert [code.CodeValue for code in image.DeidentificationMethodCodeSequence] == ["113100", "113107"]
    assert [code.CodeValue for code in report.DeidentificationMethodCodeSequence] == [
        "113100",
        "113104",
        "113105",
    ]
    assert is_deidentified(tmp_path / "copy.dcm")
    assert not is_deidentified(files[0])


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("dates", ["remove", "shift", "keep"])
def test_dciodvfy_finds_no_error_in_a_copy_that_its_original_has_not(made, tmp_path, dates):
    def errors(path):
        told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        return {line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")}

    files, results, _ = made
    for path, own in [(files[0], False), *((results[k], True) for k in ("seg", "rtstruct", "sr"))]:
        copy = copy_of(path, tmp_path, f"{path.stem}-copy.dcm", dates, own)
        assert errors(copy) - errors(path) == set(), path.name


def test_voxels_and_references_stay_whole(made, tmp_path):
    files, results, label = made
    folder = tmp_path / "scan"
    for number, path in enumerate(files):
        copy_of(path, folder, f"{number}.dcm")
    series = read_series(sorted(folder.iterdir()))
    np.testing.assert_array_equal(series.volume.array, read_series(files).volume.array)
    segmentation = copy_of(results["seg"], tmp_path, "seg.dcm", own=True)
    np.testing.assert_array_equal(read_segmentation(segmentation, series)["nodule"], label == 1)
    structures = copy_of(results["rtstruct"], tmp_path, "rt.dcm", own=True)
    np.testing.assert_array_equal(read_structures(structures, series)["nodule"], label == 1)
    report = dcmread(copy_of(results["sr"], tmp_path, "sr.dcm", own=True))
    assert dcmread(segmentation).SOPInstanceUID in report.to_json()
    assert "Volume" in report.to_json()


def test_the_same_object_becomes_the_same_bytes_and_another_key_other_uids(made, tmp_path):
    files, _, _ = made
    first, again = (
        copy_of(files[0], tmp_path, "1.dcm", "shift"),
        copy_of(files[0], tmp_path, "2.dcm", "shift"),
    )
    assert sha256_of(first) == sha256_of(again)
    deidentify(files[0], tmp_path / "3.dcm", Pseudonyms(b"q" * 32), "shift", False)
    assert dcmread(tmp_path / "3.dcm").StudyInstanceUID != dcmread(first).StudyInstanceUID
    assert dcmread(tmp_path / "3.dcm").PatientID != dcmread(first).PatientID


def test_intervals_between_studies_of_a_patient_stay(made, tmp_path):
    files, _, _ = made
    shutil.copy(files[0], tmp_path / "later.dcm")
    later = identify(tmp_path / "later.dcm", StudyDate="20240331")
    days = [
        pydicom.valuerep.DA(dcmread(copy_of(path, tmp_path, dates="shift")).StudyDate)
        for path in (files[0], later)
    ]
    assert (days[1] - days[0]).days == 31
    assert str(days[0]) != "20240229"


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
@pytest.mark.parametrize("value", ["2024/1", "not a date", "20241399"])
def test_a_date_that_is_none_is_removed_rather_than_kept(made, tmp_path, value):
    shutil.copy(made[0][0], tmp_path / "odd.dcm")
    data = dcmread(tmp_path / "odd.dcm")
    data["StudyDate"] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag("StudyDate"), "DA", len(value), value.encode(), 0, False, True
    )
    data.save_as(tmp_path / "odd.dcm")
    assert value not in all_text(copy_of(tmp_path / "odd.dcm", tmp_path, dates="shift"))


@pytest.mark.parametrize(
    "attributes",
    [
        {"BurnedInAnnotation": "YES"},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
        {"ConversionType": "SI"},
    ],
)
def test_text_that_may_be_burned_in_is_refused(made, tmp_path, attributes):
    shutil.copy(made[0][0], tmp_path / "shot.dcm")
    path = identify(tmp_path / "shot.dcm", **attributes)
    with pytest.raises(DataError, match="burned into"):
        copy_of(path, tmp_path)
    assert not (tmp_path / "copy.dcm").exists()


def test_the_picture_of_a_result_is_refused(made, tmp_path):
    with pytest.raises(DataError, match="burned into"):
        copy_of(made[1]["capture"], tmp_path, own=True)


def test_a_damaged_object_is_an_error_and_leaves_no_file(tmp_path):
    (tmp_path / "bad.dcm").write_bytes(bytes(132))
    assert copies([(str(tmp_path / "bad.dcm"), str(tmp_path / "out.dcm"), False)], "00", "remove")[0]
    assert not (tmp_path / "out.dcm").exists()


@pytest.fixture
def research(made, tmp_path):
    """Jobs whose result waits for a research destination that takes images too."""
    files, results, _ = made
    with pacs() as (port, received), Store(tmp_path / "store") as store:
        uid = keep_files(store, files)
        store.add_task("t1", uid, "tiny", "m" * 64, "i")
        for kind in ("seg", "sr"):
            path = store.results_folder("t1") / f"{kind}-1.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(results[kind], path)
            store.add_result("t1", kind, str(dcmread(path).SOPInstanceUID), sha256_of(path), path)
            store.add_delivery("t1", kind, store.results("t1")[-1].sop_uid, "pacs")
        store.add_delivery("t1", "images", uid, "pacs")
        store.set_task_state("t1", "sending")
        to = destination(port, deidentify=True, objects=["seg", "sr", "images"])
        settings = config("unused.safetensors", to)
        yield Jobs(settings, store, {}, "1"), received


def in_process(name, arguments, _limits):
    """Without a child."""
    assert name == "copies"
    return copies(**arguments)


def test_a_research_destination_is_sent_copies_of_results_and_images(research, monkeypatch, made):
    jobs, received = research
    monkeypatch.setattr(outgoing, "run_job", in_process)
    jobs.send("t1", "pacs")
    assert {each.state for each in jobs.store.deliveries()} == {"sent"}
    assert len(received) == 2 + len(made[0])
    originals = {str(dcmread(path).SOPInstanceUID) for path in made[0]}
    assert not originals & {uid for uid, _ in received}
    assert jobs.store.task("t1").state == "done"
    assert not (jobs.store.folder / "deidentified" / "pacs").exists()


def _fails(*_arguments):
    raise DataError("the process that reads the images gave no answer")


def _says_it_did(_name, arguments, _limits):
    """A child that copies without de-identifying."""
    for path, out, _ in arguments["files"]:
        outgoing.Path(out).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, out)
    return [""] * len(arguments["files"])


def _refuses_one(name, arguments, limits):
    said = in_process(name, arguments, limits)
    return [*said[:-1], "may have a name burned into its pixels"]


@pytest.mark.parametrize(("job", "sent"), [(_fails, 0), (_says_it_did, 0), (_refuses_one, 2)])
def test_whatever_fails_no_original_is_sent(research, monkeypatch, job, sent, made):
    jobs, received = research
    monkeypatch.setattr(outgoing, "run_job", job)
    jobs.send("t1", "pacs")
    originals = {str(dcmread(path).SOPInstanceUID) for path in [*made[0], *made[1].values()]}
    assert not originals & {uid for uid, _ in received}
    assert len(received) == sent
    waiting = jobs.store.deliveries("t1", "waiting")
    assert len(waiting) == 3 - sent
    assert all("is sent nothing" in each.last_error for each in waiting)


def test_a_full_disk_sends_nothing(research, monkeypatch):
    jobs, received = research
    monkeypatch.setattr(outgoing, "run_job", in_process)

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pydicom.FileDataset, "save_as", full)
    jobs.send("t1", "pacs")
    assert not received
    assert all("No space left" in each.last_error for each in jobs.store.deliveries("t1", "waiting"))


def test_pseudonyms_outlive_a_restart_and_differ_between_destinations(tmp_path):
    to = [Destination.model_validate(destination(1, deidentify=True, name=name)) for name in ("a", "b")]
    found = []
    for _ in range(2):
        with Store(tmp_path) as store:
            found.append([outgoing._key(store, each) for each in to])
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]
