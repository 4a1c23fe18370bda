"""The wheel: it holds all that a program needs, and works where nothing else of Focalis lies."""

import os
import posixpath
import re
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from focalis import predict as predict_here
from focalis.volume import Grid, Volume, read_volume, write_volume

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "focalis"


def run(*command: object, cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_everything_of_the_package_is_in_it(wheel: Path) -> None:
    """Weights, cards and templates, and the 3D viewer where `make viewer` has built it."""
    held = set(zipfile.ZipFile(wheel).namelist())
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert {f"focalis/{path.relative_to(PACKAGE)}" for path in files} <= held
    assert "focalis/models/lidc-nodule.safetensors" in held
    pages = (path for path in (ROOT / "docs").rglob("*.md"))
    assert {f"focalis/docs/{path.relative_to(ROOT / 'docs').as_posix()}" for path in pages} <= held
    assert "focalis/docs/hooks.py" not in held


@pytest.mark.slow
def test_the_links_of_its_pages_lead_to_what_it_holds(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = set(archive.namelist())
    held = names | {str(folder) for name in names for folder in PurePosixPath(name).parents}
    pages = [name for name in names if name.endswith((".md", ".ipynb")) and "/static/" not in name]
    links = {
        (page, posixpath.normpath(posixpath.join(posixpath.dirname(page), link)))
        for page in pages
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", archive.read(page).decode("utf-8"))
    }
    assert {"focalis/README.md", "focalis/docs/models.md", "focalis/examples/README.md"} <= set(pages)
    assert ("focalis/docs/models.md", "focalis/models/lidc-nodule.md") in links
    assert sorted((page, link) for page, link in links if link not in held) == []


@pytest.mark.slow
def test_its_description_leads_nowhere_that_a_package_index_lacks(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    description = archive.read(path).decode("utf-8").partition("\n\n")[2]
    assert "focalis fit mydata" in description
    assert "<img" not in description
    assert re.findall(r"\]\((?!https:)[^)]*\)", description) == []


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_it_predicts_in_an_environment_of_its_own_away_from_the_repository(
    wheel: Path, tmp_path: Path
) -> None:
    run(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    constraints = ROOT / "constraints.txt"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", constraints, "torch", wheel, cwd=tmp_path)
    where = run(python, "-c", "import focalis; print(focalis.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path)
    guides = run(python, "-m", "focalis", "--docs", cwd=tmp_path)
    assert (Path(guides.strip()) / "predict.md").is_relative_to(tmp_path)
    assert (Path(guides.strip()) / "predict.md").is_file()
    shape = (72, 72, 72)
    away = np.sqrt(((np.moveaxis(np.indices(shape), 0, -1) - 35.5) ** 2).sum(-1))
    crop = np.where(away < 8, 20, -850) + np.random.default_rng(0).normal(0, 20, shape)
    volume = Volume(crop.astype(np.int16), Grid(shape, (0.7, 0.7, 0.7)))
    write_volume(volume, tmp_path / "crop.nii.gz")
    run(
        python,
        "-m",
        "focalis",
        "predict",
        "lidc-nodule",
        "crop.nii.gz",
        "-o",
        "masks",
        "--precision",
        "float32",
        cwd=tmp_path,
    )
    mask = read_volume(tmp_path / "masks" / "crop.nii.gz").array > 0
    predict_here(
        "lidc-nodule", [tmp_path / "crop.nii.gz"], tmp_path / "here", precision="float32", runtime="torch"
    )
    here = read_volume(tmp_path / "here" / "crop.nii.gz").array > 0
    assert mask.sum() > 500
    assert 2 * (mask & here).sum() / (mask.sum() + here.sum()) > 0.99
