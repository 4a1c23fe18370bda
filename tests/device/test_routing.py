"""Routes: only `*` and `?` are special, and what people do not see does not count."""

import json

import pytest

from focalis.device.config import Config, Route
from focalis.device.records import Roles, SeriesRow
from focalis.device.routing import choose_models, effective_routes, outside_policies

MODELS = {"a": None, "b": None}


def series(**told):
    values = dict.fromkeys(SeriesRow.__dataclass_fields__, "")
    return SeriesRow(**{**values, "modality": "CT", **told})


def routes(*given):
    return Config.model_validate({"routes": given}).routes


@pytest.mark.parametrize(
    ("pattern", "description"),
    [
        ("*", ""),
        ("thorax [lung]", "Thorax [Lung]"),
        ("[b31f]*", "[B31f] 1.5 mm"),
        ("t1 (?e) + c*", "T1 (SE) + C ax"),
        ("a.c", "A.C"),
        ("AX  THIN", " ax thin "),
        ("sch\u00e4del*", "SCHA\u0308DEL nativ"),
        ("*\u0442\u043e\u043d\u043a*", "\u0413\u0440\u0443\u0434\u044c \u0422\u041e\u041d\u041a\u0418\u0415"),
        ("?\u90e8*", "\u80f8\u90e8 CT"),
    ],
)
def test_a_pattern_fits(pattern, description):
    route = routes({"model": "b", "description": pattern})
    assert choose_models(series(description=description), route, MODELS) == ("b",)


@pytest.mark.parametrize(
    ("pattern", "description"),
    [
        ("[ct]horax", "chorax"),
        ("[!a]b", "cb"),
        ("thorax", "thorax thin"),
        ("?", ""),
        ("a.c", "abc"),
        ("x+", "xx"),
    ],
)
def test_a_pattern_does_not_fit(pattern, description):
    route = routes({"model": "b", "description": pattern})
    assert choose_models(series(description=description), route, MODELS) == ()


@pytest.mark.parametrize("pattern", ["abdomen", "chest", "chest\\abdomen", "*che*"])
def test_a_pattern_may_fit_one_of_several_values(pattern):
    route = routes({"model": "a", "body_part": pattern})
    assert choose_models(series(body_part="CHEST\\ABDOMEN"), route, MODELS) == ("a",)


def test_the_first_route_that_fits_says_what_becomes_of_a_series_out_of_scope():
    given = routes(
        {"model": "a", "body_part": "head"},
        {"model": "b", "body_part": "*", "outside": "hold"},
    )
    assert outside_policies(series(body_part="HEAD"), given, False) == ("refuse", "mark")
    assert outside_policies(series(body_part="LEG"), given, False) == ("hold", "hold")
    assert outside_policies(series(body_part="LEG"), given, True) == ("mark", "mark")


@pytest.mark.parametrize(
    ("conditions", "told", "taken"),
    [
        ([{"tag": "SliceThickness", "max": 2}], {"SliceThickness": "1.25"}, True),
        ([{"tag": "SliceThickness", "max": 2}], {"SliceThickness": "2.0"}, True),
        ([{"tag": "SliceThickness", "max": 2}], {"SliceThickness": "1\\5"}, False),
        ([{"tag": "SliceThickness", "min": 1, "max": 2}], {"SliceThickness": "0.5"}, False),
        ([{"tag": "SliceThickness", "max": 2}], {}, False),
        ([{"tag": "SliceThickness", "max": 2}], {"SliceThickness": "thin"}, False),
        (
            [{"tag": "ImageType", "value": "LOCALIZER", "unless": True}],
            {"ImageType": "ORIGINAL\\AXIAL"},
            True,
        ),
        ([{"tag": "ImageType", "value": "localizer", "unless": True}], {"ImageType": "A\\LOCALIZER"}, False),
        ([{"tag": "KVP", "min": 100}, {"tag": "ConvolutionKernel", "value": "B5*"}], {"KVP": "120"}, False),
        (
            [{"tag": "KVP", "min": 100}, {"tag": "ConvolutionKernel", "value": "B5*"}],
            {"KVP": "120", "ConvolutionKernel": "b50f"},
            True,
        ),
    ],
)
def test_conditions_on_any_attribute_must_all_hold(conditions, told, taken):
    route = routes({"model": "a", "where": conditions})
    assert choose_models(series(told=json.dumps(told)), route, MODELS) == (("a",) if taken else ())


@pytest.mark.parametrize(
    "tag", ["PatientName", "PatientID", "ReferringPhysicianName", "Slicethickness", "PixelData"]
)
def test_a_condition_asks_for_no_person_and_no_other_word(tag):
    with pytest.raises(ValueError, match=tag):
        routes({"model": "a", "where": [{"tag": tag, "value": "x"}]})


def test_an_exchange_of_models_counts_until_the_file_names_others():
    roles = {"a": Roles("a", "b", "a", "b")}
    (route,) = effective_routes([Route(model="a", shadow="b")], roles)
    assert (route.models, route.shadow) == (("b",), "a")
    for same in (Route(model="a", shadow="c"), Route(model="a"), Route(model="b", shadow="a")):
        assert effective_routes([same], roles) == (same,)
