"""Points as people have them: numbers, tables, markups of 3D Slicer; what they belong to is never guessed."""

import json

import numpy as np
import pytest

from focalis.errors import DataError, UsageError
from focalis.prediction import Place
from focalis.workflows.points import places_given


def markup(**changes):
    point = {"label": "F-1", "position": [-1.5, 2.0, 3.0], "positionStatus": "defined"}
    return {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "controlPoints": [point],
    } | changes


def read(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return [(each.ends, each.voxel, each.name) for each in places_given([path])]


def test_numbers_are_points_and_a_colon_joins_the_ends_of_a_line():
    assert places_given(["-1.5,2,3", "1,2,3:4,5,6", (7, 8, 9), [(1, 2, 3), (4, 5, 6)]], ["10,20,30"]) == (
        Place(((-1.5, 2.0, 3.0),)),
        Place(((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))),
        Place(((7.0, 8.0, 9.0),)),
        Place(((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))),
        Place(((10.0, 20.0, 30.0),), voxel=True),
    )


@pytest.mark.parametrize(
    "given", ["1,2", "1,2,3,4", "1,nan,2", "1,2,3:4,5", "1,2,3:4,5,6:7,8,9", (1, 2), "no.csv", "abc"]
)
def test_what_is_not_a_point_is_refused(given):
    with pytest.raises(UsageError, match=r"three numbers|neither a point nor a file"):
        places_given([given])
    with pytest.raises(UsageError):
        places_given([], [given])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x,y,z\n1,-2,3\n", [(((1, -2, 3),), False, "")]),
        ("name,R,A,S\nleft,1,-2,3\n\n", [(((-1, 2, 3),), False, "left")]),
        ("\ufeffL;P;S\n1,5;-2;3\n", [(((1.5, -2, 3),), False, "")]),
        ("i,j,k\n1,2,3\n4,5,6\n", [(((1, 2, 3),), True, ""), (((4, 5, 6),), True, "")]),
        (
            "X,Y,Z,X2,Y2,Z2\n1,2,3,4,5,6\n7,8,9,,,\n",
            [(((1, 2, 3), (4, 5, 6)), False, ""), (((7, 8, 9),), False, "")],
        ),
        (
            "lesion,name,centroid_x_mm,centroid_y_mm,centroid_z_mm\n1,nodule,1,2,3\n",
            [(((1, 2, 3),), False, "nodule")],
        ),
        (
            "label,l,p,s,defined,selected,visible,locked,description\nF-1,1,2,3,1,1,1,0,\nF-2,0,0,0,0,1,1,0,\n",
            [(((1, 2, 3),), False, "F-1")],
        ),
    ],
)
def test_a_tables_header_says_what_its_numbers_are(tmp_path, text, expected):
    assert read(tmp_path, "points.csv", text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3\n4,5,6\n",
        "x,y\n1,2\n",
        "x,y,z\n1,2\n",
        "x,y,z\n1,a,3\n",
        "x,y,z\n",
        "",
        "x,y,z\n1,inf,2\n",
        "x,y,z,i,j,k\n1,2,3,4,5,6\n",
    ],
)
def test_a_table_that_does_not_say_it_or_holds_none_is_refused(tmp_path, text):
    with pytest.raises(DataError, match=r"points\.csv: "):
        read(tmp_path, "points.csv", text)


def test_markups_of_slicer_are_read_in_either_coordinate_system(tmp_path):
    line = markup(
        type="Line", coordinateSystem="RAS", controlPoints=[{"position": [1, 2, 3]}, {"position": [4, 5, 6]}]
    )
    unplaced = {"label": "F-2", "position": [0, 0, 0], "positionStatus": "undefined"}
    points = markup(controlPoints=[*markup()["controlPoints"], unplaced])
    content = {"markups": [points, markup(coordinateSystem="RAS"), line]}
    assert read(tmp_path, "F.mrk.json", content) == [
        (((-1.5, 2, 3),), False, "F-1"),
        (((1.5, -2, 3),), False, "F-1"),
        (((-1, -2, 3), (-4, -5, 6)), False, ""),
    ]


@pytest.mark.parametrize(
    "content",
    [
        {"markups": [markup(coordinateSystem="IJK")]},
        {"markups": [markup(coordinateUnits="um")]},
        {"markups": [markup(type="ClosedCurve")]},
        {"markups": [markup(type="Line")]},
        {"markups": [markup(controlPoints=[])]},
        {"markups": []},
        {"points": []},
        "not json",
    ],
)
def test_other_markups_are_refused_with_their_file(tmp_path, content):
    with pytest.raises(DataError, match=r"F\.mrk\.json: "):
        read(tmp_path, "F.mrk.json", content)


@pytest.mark.parametrize(("system", "sign"), [("LPS", 1), ("RAS", -1), ("0", -1), ("1", 1)])
def test_fiducials_of_older_slicers_are_read(tmp_path, system, sign):
    text = (
        f"# Markups fiducial file version = 4.11\n# CoordinateSystem = {system}\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
        "1,10.5,-20,30,0,0,0,1,1,1,0,F-1,,\n"
    )
    assert read(tmp_path, "F.fcsv", text) == [(((sign * 10.5, sign * -20, 30),), False, "F-1")]


def test_fiducials_without_a_coordinate_system_are_refused(tmp_path):
    with pytest.raises(DataError, match="LPS or RAS"):
        read(tmp_path, "F.fcsv", "1,10.5,-20,30,0,0,0,1,1,1,0,F-1,,\n")


@pytest.mark.parametrize("alone", [(24.0, 20.0, 19.2), np.array([24.0, 20.0, 19.2]), "24,20,19.2"])
def test_one_point_may_be_given_alone(alone):
    assert places_given(alone) == places_given([(24.0, 20.0, 19.2)])
    assert places_given((), alone) == places_given((), [(24.0, 20.0, 19.2)])


def test_a_pair_of_points_is_two_points():
    assert len(places_given([(1, 2, 3), (4, 5, 6)])) == 2
