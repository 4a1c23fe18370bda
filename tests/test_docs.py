"""The documentation: its snippets are Python, its commands and options exist, its links lead somewhere."""

import json
import re
import shlex
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import typer
import yaml

from focalis.cli.main import app
from focalis.cli.predict import predict
from focalis.prediction import RUNTIMES
from focalis.volume import Grid, Volume, read_volume, resample_image, write_volume
from focalis.workflows.result_files import ENDINGS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
SNIPPETS = [
    pytest.param(code, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
]
COMMAND_LINES = [
    pytest.param(line, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, line in enumerate(re.findall(r"^    (focalis .*)$", text, re.MULTILINE))
]


def options(command):
    """A command's options, those of its own commands included."""
    own = {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    }
    return own.union(*(options(below) for below in getattr(command, "commands", {}).values()))


OPTIONS = {name: options(found) for name, found in typer.main.get_command(app).commands.items()}


@pytest.mark.parametrize(("option", "known"), [("runtime", RUNTIMES), ("output_format", tuple(ENDINGS))])
def test_the_command_line_takes_every_run_time_and_format(option, known):
    assert get_args(get_type_hints(predict)[option]) == known


def test_the_table_of_places_names_files_and_what_is_in_them():
    table = TEXTS["docs/develop.md"].partition("## Where to look")[2].partition("\n## ")[0]
    rows = [row for row in table.splitlines() if row.startswith("|")][2:]
    assert len(rows) >= 10
    for row in rows:
        answer = row.strip("| ").split(" | ")[1]
        places = [ROOT / "src" / "focalis" / each for each in re.findall(r"`([\w/]+(?:\.py|/))`", answer)]
        assert places, row
        assert all(place.exists() for place in places), row
        code = "".join(place.read_text(encoding="utf-8") for place in places if place.is_file())
        assert all(re.search(rf"\b{name}\b", code) for name in re.findall(r"`(\w+)`", answer)), row


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippets_are_valid_python(code):
    compile(code, "snippet", "exec")


def test_the_phantom_snippet_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", TEXTS["docs/phantoms.md"], re.DOTALL)

    exec(code, {})

    assert capsys.readouterr().out == "4 cases\n"
    assert (tmp_path / "phantoms" / "raters" / "phantom_000_r3.nii.gz").is_file()


POINT_LPS_MM = (-62.0, 18.5, -140.0)
(CROPPING,) = re.findall(r"```python\n(.*?)```", TEXTS["docs/models.md"], re.DOTALL)


@pytest.fixture
def chest(tmp_path, monkeypatch):
    """A scan that lies head first to the other side, its index along x in every voxel, bright at the point."""
    monkeypatch.chdir(tmp_path)
    grid = Grid((180, 140, 90), (0.7, 0.7, 1.25), (0.0, 65.0, -190.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
    array = np.broadcast_to(np.arange(180, dtype=np.int16), grid.shape_zyx).copy()
    x, y, z = np.round(np.subtract(POINT_LPS_MM, grid.origin_xyz_mm) / (-0.7, -0.7, 1.25)).astype(int)
    array[z, y, x] = 1000
    scan = Volume(array, grid)
    write_volume(scan, tmp_path / "chest.nii.gz")
    return scan


def test_the_cropping_snippet_cuts_51_mm_around_the_point_and_moves_no_voxel(chest):
    exec(CROPPING, {})

    crop = read_volume(Path("crop.nii.gz"))
    sides_mm = np.multiply(crop.grid.size_xyz, crop.grid.spacing_xyz_mm)
    assert np.abs(sides_mm - 51).max() < 1
    middle = np.unravel_index(crop.array.argmax(), crop.array.shape)
    assert np.abs(np.subtract(middle, np.asarray(crop.grid.shape_zyx) // 2)).max() == 0
    same = resample_image(chest, crop.grid)
    np.testing.assert_allclose(crop.array, same.array, atol=1e-2)


def test_at_the_border_the_cropping_snippet_moves_the_crop_inwards(chest):
    exec(CROPPING.replace("(-62.0, 18.5, -140.0)", "(-1.0, 64.0, -189.0)"), {})

    crop = read_volume(Path("crop.nii.gz"))
    assert crop.grid.size_xyz == (73, 73, 41)
    assert crop.grid.origin_xyz_mm == pytest.approx(chest.grid.origin_xyz_mm)


@pytest.mark.usefixtures("chest")
def test_the_cropping_snippet_takes_a_voxel_and_refuses_a_point_outside():
    given = "scan.TransformPhysicalPointToIndex((-62.0, 18.5, -140.0))"
    assert given in CROPPING
    exec(CROPPING.replace(given, "(75, 70, 45)"), {})
    assert read_volume(Path("crop.nii.gz")).array[20, 36, 36] == 75

    with pytest.raises(SystemExit, match="lies outside of the scan"):
        exec(CROPPING.replace("(-62.0, 18.5,", "(62.0, -18.5,"), {})


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_command_lines_name_real_commands_and_options(line):
    _, command, *words = shlex.split(line.split("[")[0], comments=True)

    assert command in OPTIONS
    assert {word for word in words if re.match(r"-[^\d.]", word)} <= OPTIONS[command]


@pytest.mark.parametrize(
    ("command", "page"),
    [
        ("fit", "fit"),
        ("predict", "predict"),
        ("evaluate", "evaluate"),
        ("import", "dicom"),
        ("check", "check"),
        ("compare", "compare"),
        ("agree", "agree"),
        ("serve", "device"),
    ],
)
def test_a_commands_page_leads_to_its_options(command, page):
    assert f"`focalis {command} --help` lists" in TEXTS[f"docs/{page}.md"]


@pytest.mark.parametrize("name", TEXTS)
def test_links_to_files_lead_somewhere(name):
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)#:]+)\)", TEXTS[name])

    assert [link for link in links if not ((ROOT / name).parent / link).exists()] == []


def test_the_list_of_decisions_has_every_one_under_its_title():
    folder = ROOT / "docs" / "decisions"
    records = sorted(folder.glob("0*.md"))
    titles = [record.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for record in records]
    listed = re.findall(r"^- \[(\d{4})\]\((.+?)\)(: .+)$", TEXTS["docs/decisions/README.md"], re.MULTILINE)
    assert [(name, number + title) for number, name, title in listed] == [
        (record.name, title) for record, title in zip(records, titles, strict=True)
    ]


def test_the_index_leads_to_every_page():
    index = TEXTS["docs/index.md"]
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= set(re.findall(r"\]\(([\w-]+\.md)\)", index))


def test_the_navigation_of_the_site_names_every_page():
    made = {f"reference/{name}.md" for name in ("command-line", "python", "plan")}
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md") if not path.name[0].isdigit()}
    notebooks = {f"tutorials/{path.stem}.md" for path in (docs / "tutorials").glob("*.ipynb")}
    (nav,) = re.findall(
        r"^nav:.*", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    named = re.findall(r'"([^"]+\.md)"', json.dumps(yaml.safe_load(nav)))
    assert sorted(named) == sorted(pages | notebooks | made)
