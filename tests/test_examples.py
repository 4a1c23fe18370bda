"""The notebooks and the example scripts run, on small data."""

import json
import runpy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from device_work import save_tiny_model

from focalis.dataset import PhantomSettings, write_phantoms
from focalis.dicom import list_segments
from focalis.workflows.fit import fit

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


def run_notebook(name):
    notebook = json.loads((ROOT / "docs" / "tutorials" / f"{name}.ipynb").read_text(encoding="utf-8"))
    variables = {"__name__": "notebook"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), name, "exec"), variables)
    return variables


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_from_contours_to_a_report(home):
    run_notebook("contours_to_report")
    assert (home / "runs" / "first" / "report.html").is_file()
    assert (home / "scores" / "report.html").is_file()


def test_from_a_dicom_folder_to_a_reviewed_seg(home):
    accepted = run_notebook("dicom_to_seg")["accepted"]
    ball = 4 / 3 * np.pi * 7**3
    assert accepted.sum() == pytest.approx(ball, rel=0.5)
    assert len(list_segments(home / "result" / "reviewed_seg.dcm")) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_own_network_and_loss(home):
    plan = run_notebook("own_network")["plan"]
    assert (plan.network.name, plan.loss.name) == ("example-plain", "example-power")
    assert (home / "compared" / "compare.html").is_file()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_has_at_most_forty_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40


def run_script(monkeypatch, name, *words):
    monkeypatch.setattr("sys.argv", [name, *map(str, words)])
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")


@pytest.fixture
def image(home):
    values = np.random.default_rng(0).normal(size=(12, 14, 16)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([-1.0, 2.0, 1.0, 1.0])), home / "image.nii.gz")
    return home / "image.nii.gz"


@pytest.mark.filterwarnings("ignore:NvImgCodec:UserWarning")  # MONAI says so where it finds no GPU decoder
@pytest.mark.parametrize("name", ["in_memory", "monai_transforms"])
def test_a_script_writes_a_mask_on_the_images_grid(home, image, monkeypatch, name):
    save_tiny_model(home / "model.safetensors")
    run_script(monkeypatch, name, "model.safetensors", image, "mask.nii.gz")
    given, mask = nib.load(image), nib.load(home / "mask.nii.gz")
    assert mask.shape == given.shape
    as_ras = nib.as_closest_canonical
    np.testing.assert_allclose(as_ras(mask).affine, as_ras(given).affine)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")
def test_scans_are_predicted_on_ray(home, image, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    save_tiny_model(home / "model.safetensors")
    run_script(monkeypatch, "on_ray", "model.safetensors", image, "masks")
    assert (home / "masks" / "image.nii.gz").is_file()


@pytest.mark.slow
def test_fine_tuning_starts_from_the_model(monkeypatch):
    write_phantoms(
        "data", 5, PhantomSettings(shape_zyx=(20, 24, 28), foreground_share=0.01, lesions=1), seed=0
    )
    first = fit("data", "first", steps=2, fold=0)
    result = run_script(monkeypatch, "fine_tuning", first.model, "data", "second", 2)["result"]
    assert result.start
    assert result.model.is_file()


def test_follow_up_measures_a_lesion_on_both_dates(home, monkeypatch, capsys):
    z, y, x = np.indices((48, 64, 64)) - np.array([24, 32, 32]).reshape(3, 1, 1, 1)
    body = 100.0 * ((z / 22) ** 2 + (y / 28) ** 2 + (x / 25) ** 2 < 1)
    texture = np.random.default_rng(0).normal(0, 5, body.shape)
    for date, radius in (("a", 5), ("b", 8)):
        ball = (z - 3) ** 2 + (y + 6) ** 2 + (x - 4) ** 2 < radius**2
        for kind, values in (("", body + texture + 80 * ball), ("_mask", ball)):
            nib.save(
                nib.Nifti1Image(values.T.astype(np.float32 if not kind else np.uint8), np.eye(4)),
                f"{date}{kind}.nii.gz",
            )
    run_script(monkeypatch, "follow_up", "out", "a.nii.gz", "a_mask.nii.gz", "b.nii.gz", "b_mask.nii.gz")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[:2]] == ["lesion 1: baseline", "lesion 1: persistent"]
    volumes = [float(line.split(", ")[1].split(" ")[0]) for line in lines[:2]]
    assert volumes == pytest.approx([4 / 3 * np.pi * radius**3 for radius in (5, 8)], rel=0.1)
    assert (home / "out" / "report.html").is_file()
