"""The tables of whole scans and sizes of patches, from small made-up results with known answers."""

import json

import numpy as np
import patch_sizes
import whole_scans


def test_a_size_is_set_against_the_usual_one_scan_by_scan(tmp_path, monkeypatch):
    monkeypatch.setattr(patch_sizes, "RESULTS", tmp_path)
    for side, dice in ((40, (0.5, 0.7)), (32, (0.6, 0.8))):
        cases = {
            f"case{number}": {"dice": value, "found": 2, "missed": 1, "false": number}
            for number, value in enumerate(dice)
        }
        row = {"data": "heads", "side": side, "batch": 2, "steps": 120, "seed": 0}
        content = {**row, "training_seconds": [30, 31], "cases": cases}
        (tmp_path / f"heads-{side}.json").write_text(json.dumps(content))
    assert patch_sizes.table()[2:] == [
        "| heads | 32, 2 | 120, 0 | 61 | 2 | 0.700 | +0.100 (+0.100 to +0.100) | 0.727 |",
        "| heads | 40, 2 | 120, 0 | 61 | 2 | 0.600 |  | 0.727 |",
    ]


def test_memory_is_read_before_the_first_step_and_after_each(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_scans, "SHAPE_ZYX", (40, 44, 48))
    monkeypatch.setattr(whole_scans, "BALLS", 2)
    monkeypatch.setattr(whole_scans, "STEPS", 1)
    case = whole_scans.made(tmp_path, 0)
    image, label = case.read_images()[0].array, case.read_label().array > 0
    assert label.any()
    assert image[label].mean() - image[~label].mean() > 200
    found = whole_scans.memory_of(2)
    assert [len(each) for each in found.values()] == [2, 2]
    assert all(0 < own < resident for own, resident in zip(found["RssAnon"], found["VmRSS"], strict=True))


def test_the_table_of_memory_names_first_and_last_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_scans, "RESULTS", tmp_path)
    memory = {"RssAnon": [0.2, *np.linspace(0.4, 0.59, 20).tolist()], "VmRSS": [0.3] * 20 + [0.8]}
    content = {"shape_zyx": [4, 5, 6], "steps": 20, "cases": {"1": memory}}
    (tmp_path / "memory.json").write_text(json.dumps(content))
    assert whole_scans.memory_table()[-1] == "| 1 | 0.20 | 0.49 | 0.59 | 0.80 |"
    assert whole_scans.fit_table() == []
