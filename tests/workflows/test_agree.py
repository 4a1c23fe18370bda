"""Agreement of readers from folders and data sets, as its user meets it."""

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from focalis.cli.main import app
from focalis.dataset import PhantomSettings, write_phantoms
from focalis.errors import DataError, UsageError
from focalis.volume import Grid, Volume, read_volume, write_volume
from focalis.workflows.agree import agree

DATA = Path(os.environ.get("FOCALIS_DATA", Path(__file__).parents[3] / "shared" / "data"))
GRID = Grid((12, 11, 10), (1.0, 1.0, 2.0))


def bar(start: int, value: int = 1) -> Volume:
    array = np.zeros(GRID.shape_zyx, np.uint8)
    array[3:6, 3:6, start : start + 4] = value
    return Volume(array, GRID)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two readers; the second lacks case c, and lies 0 and 1 voxels of 4 beside the first."""
    for case, start in (("a", 2), ("b", 3)):
        write_volume(bar(2), tmp_path / "ann" / f"{case}.nii.gz")
        write_volume(bar(start), tmp_path / "ben" / f"{case}.nii.gz")
    write_volume(bar(2), tmp_path / "ann" / "c.nii.gz")
    return tmp_path / "ann", tmp_path / "ben"


def test_folders_are_named_by_their_readers_and_a_missing_case_is_normal(folders, tmp_path):
    found = agree(folders, tmp_path / "out")
    assert [(p.case, p.first, p.second, p.dice) for p in found.pairs] == [
        ("a", "ann", "ben", 1.0),
        ("b", "ann", "ben", 0.75),
    ]
    assert (found.readers, found.single) == ({"ann": 3, "ben": 2}, ("c",))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "agreement.json",
        "pairs.csv",
        "report.html",
    ]
    document = json.loads((tmp_path / "out" / "agreement.json").read_text())
    assert document["structures"][0]["statistics"][0]["mean"] == 0.875
    assert "Cohen's kappa" in document["rules"]["detection_kappa"]
    with (tmp_path / "out" / "pairs.csv").open() as file:
        assert [row["dice"] for row in csv.DictReader(file)] == ["1.0", "0.75"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "worst case b, label 1: ann and ben, Dice 0.750" in page
    assert "data:image/png" in page


def test_a_data_set_brings_its_readers_images_and_names(tmp_path):
    settings = PhantomSettings(shape_zyx=(16, 20, 24), foreground_share=0.01, lesions=1, readers=3)
    data = write_phantoms(tmp_path / "data", 3, settings, 0)
    (data.root / "raters" / "phantom_001_r2.nii.gz").unlink()
    found = agree([data.root], tmp_path / "out")
    assert [pair.case for pair in found.pairs] == ["phantom_000"] * 3 + ["phantom_001"] + ["phantom_002"] * 3
    assert found.structures[0].structure == "lesion"
    assert 0.4 < found.structures[0]["dice"].mean < 1


def test_masks_of_structures(folders):
    for folder in folders:
        for path in list(folder.iterdir()):
            for structure, value in (("Optic-Nerve", 255), ("Eye", 1)):
                write_volume(
                    replace(read_volume(path), array=read_volume(path).array * np.uint8(value)),
                    folder / f"x_{path.name.removesuffix('.nii.gz')}_{structure}.nii.gz",
                )
            path.unlink()
    found = agree(folders, masks=True)
    assert [(s.structure, s.cases, s["dice"].mean) for s in found.structures] == [
        ("Eye", 2, 0.875),
        ("Optic-Nerve", 2, 0.875),
    ]
    assert {pair.case for pair in found.pairs} == {"x_a", "x_b"}
    assert len(found.single) == 1


def test_every_bad_file_is_named_and_nothing_is_written(folders, tmp_path):
    ann, ben = folders
    write_volume(Volume(bar(2).array, replace(GRID, origin_xyz_mm=(0.0, 3.0, 0.0))), ben / "a.nii.gz")
    (ben / "b.nii.gz").write_bytes(b"nonsense")
    with pytest.raises(DataError) as caught:
        agree(folders, tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert any("a: readers ann and ben lie on different grids: origin" in line for line in lines)
    assert any(str(ben / "b.nii.gz") in line for line in lines)
    assert not (tmp_path / "out").exists()
    assert ann.is_dir()


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (("A/labels", "B/labels"), {"A", "B"}),
        (("x/A/1/masks", "x/B/1/masks"), {"A", "B"}),
        (("A/labels", "B/labels", "cid"), {"A", "B", "cid"}),
        (("site/labels", "labels"), {"site", "data"}),
    ],
)
def test_folders_of_one_name_are_named_by_where_they_differ(folders, tmp_path, places, names):
    copies = [shutil.copytree(folders[0], tmp_path / "data" / place) for place in places]
    assert set(agree(copies).readers) == names


def test_wrong_calls(folders, tmp_path):
    ann, ben = folders
    with pytest.raises(UsageError, match="is not there"):
        agree([ann, tmp_path / "nobody"])
    with pytest.raises(UsageError, match="ann: is the folder of one reader; give one for each reader"):
        agree([ann])
    with pytest.raises(UsageError, match="is given twice"):
        agree([ann, tmp_path / "ben" / ".." / "ann"])
    for reader in ("one", "two"):
        write_volume(bar(2, 2), tmp_path / reader / "a.nii.gz")
    with pytest.raises(UsageError, match="2 is ignored, and there is no other label"):
        agree([tmp_path / "one", tmp_path / "two"], ignore=2)
    with pytest.raises(DataError, match="not named CASE_STRUCTURE"):
        agree([ann, ben], masks=True)
    (ben / "a.nii.gz").unlink()
    (ben / "b.nii.gz").unlink()
    with pytest.raises(DataError, match="no case has two readers"):
        agree([ann, ben])


def test_the_command(folders, tmp_path):
    result = CliRunner().invoke(app, ["agree", *map(str, folders), "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "label 1: 2 cases, Dice 0.875 [0.750, 1.000]" in result.stdout
    assert "1 case with fewer than two readers" in result.stdout
    result = CliRunner().invoke(app, ["agree", *map(str, folders), "--json"])
    assert json.loads(result.stdout)["readers"] == {"ann": 3, "ben": 2}


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the public data sets are not here")
def test_real_readers_agree_as_published_with_the_sets():
    folder = DATA / "two_annotators_hn_masks"
    found = agree([folder / "oncologist", folder / "radiographer"], masks=True)
    with (folder / "agreement.csv").open() as file:
        published = {
            row["structure"]: (int(row["n"]), float(row["mean_dice"])) for row in csv.DictReader(file)
        }
    assert {s.structure: (s.cases, round(s["dice"].mean, 3)) for s in found.structures} == published
    (nodule,) = agree([DATA / "lidc_nodules"]).structures
    assert (nodule.cases, round(nodule["dice"].mean, 3)) == (86, 0.786)
