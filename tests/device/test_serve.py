"""Settings from the command line, models by hash, routes, and what the documentation says of focalis.toml."""

import hashlib
import re
from pathlib import Path

import pytest
import requests
from pydantic import BaseModel
from small_plan import small_plan
from torch import nn

from focalis.cli.main import main
from focalis.device.config import Config, ModelEntry, Route, load_config
from focalis.device.models import ServedModel, open_models
from focalis.device.records import SeriesRow
from focalis.device.routing import check_routes, choose_models
from focalis.device.serve import running, settings_for
from focalis.device.web.auth import password_fits
from focalis.errors import ModelError, UsageError
from focalis.model import Model
from focalis.models import SHIPPED

EXAMPLE = Path(__file__).parents[2] / "docs" / "focalis.toml"


def row(modality="CT", body_part="CHEST", description="Thorax thin"):
    return SeriesRow("1.2", "1.1", modality, body_part, description, "", 3, "complete", "", "", 0, None)


@pytest.mark.parametrize(
    ("route", "fits"),
    [
        ({}, True),
        ({"modality": "ct"}, True),
        ({"modality": "MR"}, False),
        ({"body_part": "*chest*", "description": "*THIN"}, True),
        ({"body_part": "*chest*", "description": "thick"}, False),
    ],
)
def test_every_pattern_of_a_route_must_fit(route, fits):
    chosen = choose_models(row(), [Route(model="a", **route)], {"a": None, "b": None})
    assert chosen == (("a",) if fits else ())


def test_the_first_route_that_fits_wins_and_other_objects_are_not_images():
    routes = [Route(model="a", modality="MR"), Route(model="b"), Route(model="a")]
    assert choose_models(row(), routes, {"a": None, "b": None}) == ("b",)
    assert choose_models(row("SEG"), routes, {"a": None, "b": None}) == ()


def test_a_single_model_needs_no_route_and_several_do():
    assert choose_models(row("PT"), [], {"a": None}) == ("a",)
    check_routes([], {"a": None})
    with pytest.raises(UsageError, match="no route"):
        check_routes([], {"a": None, "b": None})
    with pytest.raises(UsageError, match="'c'"):
        check_routes([Route(model="c")], {"a": None})


def test_the_routes_of_the_example_lead_to_models_that_it_lists():
    config = load_config(EXAMPLE)
    assert any(route.shadow and route.points for route in config.routes)
    served = {each.name: model_of("nodule", guided=each.name in SHIPPED) for each in config.models}
    check_routes(config.routes, served)


def model_of(*labels, guided=False):
    plan = small_plan(labels=dict(enumerate(labels, start=1)), use="guided" if guided else "detector")
    return ServedModel("m", Path("m.safetensors"), Model(plan, (nn.Identity(),)))


@pytest.mark.parametrize(
    ("detector", "points", "fault"),
    [
        (model_of("lesion"), model_of("nodule", guided=True), ""),
        (model_of("nodule", "mass"), model_of("mass", guided=True), ""),
        (
            model_of("nodule", "mass"),
            model_of("lesion", guided=True),
            "whose label 'lesion' is none of a's (mass, nodule)",
        ),
        (model_of("lesion"), model_of("lesion"), "which takes no points"),
    ],
    ids=["one label each", "a label of several", "another label", "a detector"],
)
def test_the_model_for_points_is_guided_and_knows_the_labels(detector, points, fault):
    route, models = Route(model="a", points="b"), {"a": detector, "b": points}
    if not fault:
        check_routes([route], models)
        return
    with pytest.raises(UsageError, match=re.escape(fault)):
        check_routes([route], models)


def test_a_model_is_known_by_its_hash(model):
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert (
        open_models([ModelEntry(name="a", file=model, sha256=digest)])["a"].header.identity.file_sha256
        == digest
    )
    with pytest.raises(ModelError, match="the file was changed"):
        open_models([ModelEntry(name="a", file=model, sha256="0" * 64)])


def test_the_command_line_stands_before_the_file(model, tmp_path):
    path = tmp_path / "focalis.toml"
    path.write_text("[node]\nport = 104\nae_title = 'X'\n[store]\nretain_days = 3\n")
    found = settings_for(model, path, tmp_path / "s", 0, 81)
    assert (found.node.port, found.node.ae_title, found.web.port) == (0, "X", 81)
    assert (found.store.folder, found.store.retain_days) == (tmp_path / "s", 3)
    assert [entry.name for entry in found.models] == ["tiny"]


def test_a_page_for_everybody_needs_users(tmp_path):
    path = tmp_path / "focalis.toml"
    path.write_text("[web]\nhost = '0.0.0.0'\n")
    with pytest.raises(UsageError, match="add users"):
        settings_for(None, path, None, None, None)


def test_a_second_process_on_the_store_is_refused_and_nothing_stays_started(model, tmp_path):
    settings = settings_for(model, None, tmp_path / "store", 0, 0)
    with running(settings) as device:
        assert device.web_url.startswith("http://127.0.0.1:")
        ready = requests.get(device.web_url + "readyz", timeout=30)
        assert (ready.status_code, ready.json()["problems"]) == (200, [])
        with pytest.raises(UsageError, match="another focalis serve"), running(settings):
            pass
    with running(settings) as again:
        assert again.wrong() == ""


@pytest.mark.parametrize(
    ("more", "told"), [([], "needs a database to share"), (["--port", "0"], "listens on no port")]
)
def test_a_worker_needs_a_database_and_takes_no_port(model, tmp_path, capsys, more, told):
    with pytest.raises(SystemExit):
        main(["serve", str(model), "--worker", "--folder", str(tmp_path / "store"), *more])
    assert told in capsys.readouterr().err


def test_hash_password_prints_what_the_page_takes(capsys, monkeypatch):
    monkeypatch.setattr("typer.prompt", lambda *_given, **_options: "geheim")
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--hash-password"])
    assert not stopped.value.code
    assert password_fits("geheim", capsys.readouterr().out.strip())


def keys(kind: type[BaseModel], name=""):
    """Every key of a section, "section.key"."""
    for key, field in kind.model_fields.items():
        inner = field.annotation
        arguments = [each for each in getattr(inner, "__args__", ()) if isinstance(each, type)]
        inner = next((each for each in [inner, *arguments] if hasattr(each, "model_fields")), None)
        if inner is not None:
            yield from keys(inner, key)
        else:
            yield f"{name}.{key}"


def test_the_documented_settings_are_valid_and_name_every_key(tmp_path):
    import tomllib

    text = EXAMPLE.read_text(encoding="utf-8")
    (tmp_path / "focalis.toml").write_text(text)
    load_config(tmp_path / "focalis.toml")

    def named(section, content):
        for table in content if isinstance(content, list) else [content]:
            for key, value in table.items():
                nested = isinstance(value, list) and value and isinstance(value[0], dict)
                yield from named(key, value) if nested else [f"{section}.{key}"]

    written = {key for section, content in tomllib.loads(text).items() for key in named(section, content)}
    assert written == set(keys(Config))
