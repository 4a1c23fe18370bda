"""`focalis demo`: where it writes, where real data come from; the whole of it is run by `.ci/run`."""

import pytest

from focalis.cli.main import main


@pytest.fixture
def run(capsys):
    """Run the command line; the exit code and what was printed on stderr."""

    def call(*words):
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        return stopped.value.code or 0, capsys.readouterr().err

    return call


def test_a_folder_with_other_files_is_refused_and_left_alone(run, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("irreplaceable")

    code, err = run("demo", "-o", tmp_path)

    assert code == 2
    assert str(tmp_path) in err
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "thesis.txt"]


def test_a_name_needs_the_variable_that_says_where_data_are(run, tmp_path, monkeypatch):
    monkeypatch.delenv("FOCALIS_DATA", raising=False)

    code, err = run("demo", "nodules", "-o", tmp_path)

    assert code == 2
    assert "FOCALIS_DATA" in err


def test_an_unknown_name_lists_the_known_ones(run, tmp_path, monkeypatch):
    (tmp_path / "hippocampus" / "images").mkdir(parents=True)
    monkeypatch.setenv("FOCALIS_DATA", str(tmp_path))

    code, err = run("demo", "nodules", "-o", tmp_path / "out")

    assert code == 2
    assert "hippocampus" in err
