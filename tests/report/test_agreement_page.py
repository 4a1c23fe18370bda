"""The figure of two readers: on which slice, and that it draws with and without an image."""

import numpy as np
import pytest

from focalis.evaluation.agreement import Agreement, compare_readers, summarise_agreement
from focalis.report import agreement_figure, write_agreement_report
from focalis.report.agreement_page import _slice
from focalis.volume import Grid, Volume

GRID = Grid((20, 16, 10), (1.0, 1.0, 2.0))


def drawn(planes, width=4):
    array = np.zeros(GRID.shape_zyx, np.uint8)
    for plane, rows in planes.items():
        array[plane, 4 : 4 + rows, 6 : 6 + width] = 1
    return array


def test_the_slice_is_where_both_drew_and_differ_most():
    one, other = drawn({2: 9, 3: 3, 4: 5}), drawn({3: 4, 4: 2, 5: 8})
    assert _slice(one > 0, other > 0) == 4
    assert _slice(one > 0, one > 0) == 2
    assert _slice(drawn({2: 4}) > 0, drawn({7: 6}) > 0) == 7
    assert _slice(drawn({}) > 0, drawn({}) > 0) == 5


@pytest.mark.parametrize(
    "planes", [({3: 4}, {3: 5}), ({3: 4}, {7: 5}), ({}, {})], ids=["both", "apart", "nothing"]
)
@pytest.mark.parametrize("with_image", [True, False])
def test_a_panel_per_pair_is_a_picture(planes, with_image):
    one, other = (Volume(drawn(each), GRID) for each in planes)
    (pair,) = compare_readers({"ann": one, "ben": other}, {1: "tumour"})
    image = Volume(np.random.default_rng(0).normal(size=GRID.shape_zyx), GRID) if with_image else None
    png = agreement_figure([(pair, image, one, other)] * 2)
    assert png.startswith(b"\x89PNG")
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
    assert (width, height) == (1100, 605)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"ann": 4, "ben": 6}, "ben contours larger than ann: by 40.0 % of the mean volume"),
        ({"ann": 6, "ben": 4}, "ann contours larger than ben: by 40.0 % of the mean volume"),
        ({"ann": 5, "ben": 5, "eve": 5}, "No reader contours larger than the others."),
        (
            {"ann": 4, "ben": 6, "eve": 5},
            "ben contours the largest, 29.1 % more than the others on average; ann",
        ),
    ],
)
def test_the_page_says_who_contours_larger(tmp_path, rows, expected):
    masks = {reader: Volume(drawn({3: count}), GRID) for reader, count in rows.items()}
    pairs = compare_readers(masks, {1: "tumour"})
    found = Agreement(pairs, summarise_agreement(pairs), dict.fromkeys(rows, 1), (), 1.0, 0)
    write_agreement_report(tmp_path / "r.html", found, ("figure", b"\x89PNG"))
    page = (tmp_path / "r.html").read_text()
    assert expected in page
    assert ("<th>Mean Dice</th><th>ann</th><th>ben</th>" in page) == (len(rows) > 2)  # two need no matrix


def test_the_page_says_first_how_well_readers_agree(tmp_path):
    one, other = (Volume(drawn(each), GRID) for each in ({3: 4}, {3: 5}))
    pairs = compare_readers({"ann": one, "ben": other}, {1: "tumour"}, case="a")
    agreement = Agreement(pairs, summarise_agreement(pairs), {"ann": 1, "ben": 1}, (), 1.0, 0)
    write_agreement_report(tmp_path / "report.html", agreement, ("figure", b"\x89PNG"))
    page = (tmp_path / "report.html").read_text()
    assert "Two readers of one case agree with a mean Dice of 0.89" in page
    assert '<a href="#pictures">a</a>' in page
