"""`focalis demo`: where it writes, where real data come from; the whole of it is run by `.ci/run`."""

import pytest

from focalis.cli.main import main
from focalis.workflows.demo import DemoResult


def test_a_folder_with_other_files_is_refused_and_left_alone(run, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("irreplaceable")

    code, _, err = run("demo", "-o", tmp_path)

    assert code == 2
    assert str(tmp_path) in err
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "thesis.txt"]


def test_a_name_needs_the_variable_that_says_where_data_are(run, tmp_path, monkeypatch):
    monkeypatch.delenv("FOCALIS_DATA", raising=False)

    code, _, err = run("demo", "nodules", "-o", tmp_path)

    assert code == 2
    assert "FOCALIS_DATA" in err


def test_an_unknown_name_lists_the_known_ones(run, tmp_path, monkeypatch):
    (tmp_path / "hippocampus" / "images").mkdir(parents=True)
    monkeypatch.setenv("FOCALIS_DATA", str(tmp_path))

    code, _, err = run("demo", "nodules", "-o", tmp_path / "out")

    assert code == 2
    assert "hippocampus" in err


def test_a_training_that_learned_nothing_is_said_before_the_figures(tmp_path, monkeypatch, capsys):
    result = DemoResult(
        data=tmp_path,
        generated=True,
        model=tmp_path / "model",
        masks=tmp_path / "masks",
        training_report=tmp_path / "fit.html",
        report=tmp_path / "report.html",
        summary=None,
        alerts=("the network found no lesion",),
    )
    monkeypatch.setattr("focalis.workflows.demo.demo", lambda *_: result)
    monkeypatch.setattr("focalis.cli.demo.print_summary", lambda _: print("FIGURES"))
    with pytest.raises(SystemExit):
        main(["demo", "-o", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert out.index("WARNING: the network found no lesion") < out.index("FIGURES")
