import hashlib

import pytest
import torch
from safetensors.torch import save_file

from focalis import models
from focalis.errors import ModelError
from focalis.models.start import read_start


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of an installation with a start, and its hash beside it."""
    file = tmp_path / "shapes.safetensors"
    save_file({"stem.weight": torch.ones(2, 3)}, file, metadata={"task": "classes"})
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "shapes.sha256").write_text(f"{digest}  {file.name}\n")
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    return tmp_path


def test_the_start_that_comes_with_focalis(folder):
    start = read_start()

    assert start.name == "shapes"
    assert start.sha256 == (folder / "shapes.sha256").read_text().split()[0]
    assert start.recipe == {"task": "classes"}
    assert torch.equal(start.state["stem.weight"], torch.ones(2, 3))


def test_another_start_by_its_path(tmp_path):
    file = tmp_path / "mine.safetensors"
    save_file({"a": torch.zeros(1)}, file)

    start = read_start(file)

    assert (start.name, list(start.state), start.recipe) == ("mine", ["a"], {})


def test_a_start_that_was_changed_is_refused(folder):
    file = folder / "shapes.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")

    with pytest.raises(ModelError, match=r"shapes\.safetensors: has the SHA-256 .*install Focalis again"):
        read_start()


def test_an_installation_without_a_start_says_what_to_do(folder):
    (folder / "shapes.safetensors").unlink()

    with pytest.raises(ModelError, match="train from random weights, or give the file of a start"):
        read_start()


def test_a_file_that_holds_no_weights_is_refused_by_name(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("no weights here")

    with pytest.raises(ModelError, match=r"notes\.txt: cannot be read as weights"):
        read_start(file)
    with pytest.raises(ModelError, match=r"missing\.safetensors: cannot be read as weights"):
        read_start(tmp_path / "missing.safetensors")
