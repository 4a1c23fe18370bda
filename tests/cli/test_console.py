"""What the commands print while they work and at the end."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from focalis.cli.console import print_json, print_summary, progress_bar, show_training
from focalis.evaluation import evaluate_case, summarise
from focalis.training import Progress
from focalis.volume import Grid, Volume


def test_without_a_terminal_each_stage_is_a_line(capsys):
    with progress_bar() as advance:
        show = show_training(advance)
        show("check", None)
        show("train", Progress(step=1, steps=50, loss=0.5, val_dice=None, seconds_left=90))
        show("train", Progress(step=2, steps=50, loss=0.4, val_dice=0.25, seconds_left=88))
        show("predict", None)

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "check\ntrain: 1 of 50, loss 0.5000, 1.5 min left\npredict\n"


def test_json_holds_results_with_paths_as_text(capsys):
    @dataclass(frozen=True)
    class Made:
        where: Path
        parts: tuple[Path, ...]

    print_json(Made(Path("a"), (Path("b"),)))

    assert json.loads(capsys.readouterr().out) == {"where": "a", "parts": ["b"]}


def test_a_summary_gives_intervals_and_says_what_is_undefined(capsys):
    grid = Grid((4, 4, 4))
    nothing = Volume(np.zeros((4, 4, 4), np.uint8), grid)
    something = Volume(np.ones((4, 4, 4), np.uint8), grid)
    scores = [
        *evaluate_case(nothing, nothing, {1: "lesion"}, case="a"),
        *evaluate_case(nothing, something, {1: "lesion"}, case="b"),
    ]

    print_summary(summarise(scores))

    line = capsys.readouterr().out
    assert "lesion: 2 cases, Dice 0.500 [0.000, 1.000]" in line
    assert "lesion sensitivity undefined" in line
    assert "false positives per scan 0.500 [0.000, 1.000]" in line
