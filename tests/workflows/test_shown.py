"""Whatever a public function returns shows itself in a line in a terminal and as a table in a notebook."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from follow_scenes import Ball, grid_of, scan
from scipy import ndimage

import focalis
from focalis.display import Shown
from focalis.model import EightBit, Refinement
from focalis.planning import learn_scope
from focalis.volume import Volume, write_volume

FILE = Path(__file__).parent.parent / "prediction" / "written_before.safetensors"
LONGEST = 500
SPACING = (2.0, 1.0, 1.0)


def parts(value: object, name: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """An object of Focalis and those that its public attributes, and the containers in them, lead to."""
    if id(value) in seen or isinstance(value, str | bytes | int | float | Path | np.ndarray | type):
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        for key, each in list(value.items())[:3]:
            yield from parts(each, f"{name}[{key!r}]", seen)
        return
    if isinstance(value, tuple | list):
        for number, each in enumerate(value[:3]):
            yield from parts(each, f"{name}[{number}]", seen)
    if not type(value).__module__.startswith("focalis."):
        return
    yield name, value
    fields = [each.name for each in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    for field in [*fields, *getattr(type(value), "model_fields", ()), *getattr(value, "shows", ())]:
        if not field.startswith("_"):
            yield from parts(getattr(value, field), f"{name}.{field}", seen)


@pytest.fixture(scope="module")
def results(tmp_path_factory, phantoms) -> dict[str, object]:
    """What the functions return that need no training."""
    folder = tmp_path_factory.mktemp("shown")
    rng = np.random.default_rng(0)
    figures = {"spacing": [0.0] * 3, "extent": [4.0] * 3, "thumbnail 0": [0.5] * 512}
    model = focalis.load(FILE)
    whole = replace(
        model,
        scope=learn_scope([figures] * 6),
        eight_bit=EightBit(({f"layer {number}": (0.0, 1.0) for number in range(30)},), 0.001, "x" * 200),
        refinement=Refinement(1.0, 1.0, 1.0, 1.0, 1.0, 5, "y" * 200),
    )
    array = 2 * ndimage.gaussian_filter(rng.normal(size=(12, 20, 24)), 1.5).astype(np.float32)
    array /= array.std()
    truth = np.zeros(array.shape, np.uint8)
    truth[3:6, 4:9, 4:9] = 1
    found = model.segment(
        array,
        SPACING,
        settings=focalis.Settings(threshold=0.1, minimum_mm3=0, minimum_confidence=0, runtime="torch"),
    )
    for reader in "abc":
        mask = np.roll(truth, ord(reader) - 96, axis=2)
        write_volume(Volume(mask, found.grid), folder / "readers" / reader / "one.nii.gz")
    write_volume(Volume(array, found.grid), folder / "images" / "one.nii.gz")
    scans, masks = [], []
    for name, size in (("january", 9), ("april", 12)):
        image, label = scan([Ball((20, 10, 16), size)], grid_of((8, 8, 8)), None, seed=len(name))
        for volume, paths in ((image, scans), (label, masks)):
            paths.append(folder / f"{name}{len(masks)}{len(scans)}.nii.gz")
            write_volume(volume, paths[-1])

    return {
        "load": whole,
        "segment": found,
        "Settings": focalis.Settings(threshold=0.3),
        "evaluate": focalis.evaluate(
            {"one": found, "two": truth}, {"one": truth, "two": truth}, spacing_mm=SPACING
        ),
        "agree": focalis.agree([folder / "readers" / reader for reader in "abc"]),
        "check": focalis.check(phantoms),
        "predict": focalis.predict(FILE, folder / "images", folder / "out"),
        "follow": focalis.follow(scans, folder / "followed", masks=masks, dates=["2026-01-05", "2026-04-05"]),
    }


def test_public_results_show_themselves_shortly(results):
    faults = []
    for name, result in results.items():
        assert isinstance(result, Shown), name
        for place, each in parts(result, name, set()):
            if max(len(repr(each)), len(str(each))) >= LONGEST:
                faults.append(f"{place}: {type(each).__name__}: {len(repr(each))}")
            if isinstance(each, Shown):
                page = each._repr_html_()
                if not page.startswith("<table>") or len(page) > 40 * LONGEST:
                    faults.append(f"{place}: {page[:80]}")
    assert faults == []
