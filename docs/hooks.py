"""What MkDocs cannot do itself: reference pages made from the code, notebooks as pages, links out of docs/."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer
from pydantic import BaseModel

import focalis
from focalis.cli.main import app
from focalis.planning import Plan

DOCS = Path(__file__).parent


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made, in place of what they are made from."""
    from mkdocs.structure.files import File

    made = {
        "reference/command-line.md": command_line(),
        "reference/python.md": python(),
        "reference/plan.md": plan_keys(),
    }
    for notebook in sorted((DOCS / "tutorials").glob("*.ipynb")):
        made[f"tutorials/{notebook.stem}.md"] = page_of(json.loads(notebook.read_text(encoding="utf-8")))
        files.remove(files.get_file_from_path(f"tutorials/{notebook.name}"))
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to notebooks to their pages, and name files outside of docs/, which the site does not hold."""
    home = (DOCS / page.file.src_uri).parent

    def led(found: re.Match[str]) -> str:
        text, target = found["text"], found["target"]
        path = (home / target.partition("#")[0]).resolve()
        if target.endswith(".ipynb"):
            return f"[{text}]({target.removesuffix('.ipynb')}.md)"
        if re.match(r"\w+:|#", target) or (path.is_relative_to(DOCS) and path.is_file()):
            return found[0]
        if path.is_relative_to(DOCS) and not path.exists():
            return found[0]  # a generated page, or a broken link, which MkDocs reports
        return f"{text} (`{path.relative_to(DOCS.parent)}`)"

    return re.sub(r"(?<!!)\[(?P<text>[^\]\n]*)\]\((?P<target>[^)\s]+)\)", led, markdown)


def command_line() -> str:
    """Every command with its arguments and options."""
    root = typer.main.get_command(app)
    return "\n".join(["# Command line", "", *_commands(root, "focalis")])


def _commands(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    yield from ((f"## {name}", "") if " " in name else ())
    yield from (str(command.help or ""), "")
    rows = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    if rows:
        yield from ("| argument or option | default | what |", "|---|---|---|")
        for parameter in rows:
            names = [*parameter.opts, *parameter.secondary_opts]
            label = ", ".join(names) if names[0].startswith("-") else (parameter.metavar or names[0].upper())
            default = parameter.get_default(context, call=False)
            shown = "" if default is None or callable(default) or parameter.required else f"`{default}`"
            yield f"| `{label}` | {shown} | {_cell(getattr(parameter, 'help', None) or '')} |"
        yield ""
    for below, found in getattr(command, "commands", {}).items():
        yield from _commands(found, f"{name} {below}")


def python() -> str:
    """Every public name."""
    names = [name for name in focalis.__all__ if not name.startswith("__")]
    homes = {name: getattr(focalis, name) for name in names}
    entries = [
        f"::: {each.__module__}.{each.__name__}\n    options:\n      heading: {name}\n"
        for name, each in homes.items()
    ]
    return "\n".join(["# Python", "", "Each name is imported from `focalis`.", "", *entries])


def plan_keys() -> str:
    """Every field of plan.yaml."""
    lines = [
        "# Plan keys",
        "",
        "The fields of `plan.yaml`. [The plan](../plan.md) says how each is decided.",
        "",
    ]
    for name, model in (("Top level", Plan), *sorted(_below(Plan).items())):
        about = "" if model is Plan else _cell((model.__doc__ or "").split("\n\n")[0])
        lines += [f"## {name}", "", about, "", "| key | type | default |", "|---|---|---|"]
        for key, field in model.model_fields.items():
            default = (
                "required"
                if field.is_required()
                else f"`{_value(field.get_default(call_default_factory=True))}`"
            )
            lines.append(f"| `{key}` | `{_cell(_type(field.annotation))}` | {default} |")
        lines.append("")
    return "\n".join(lines)


def _below(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The models that the fields of a plan hold, by the field's name."""
    found = {}
    for key, field in model.model_fields.items():
        for each in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(each, type) and issubclass(each, BaseModel):
                found[key] = each
    return found


def _value(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_value(each) for each in value] if isinstance(value, tuple) else value


def _type(annotation: Any) -> str:
    shown = (
        annotation.__name__
        if isinstance(annotation, type) and not hasattr(annotation, "__args__")
        else str(annotation)
    )
    return re.sub(r"\b(typing|focalis\.[\w.]+|pathlib)\.(?=\w)", "", shown)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def page_of(notebook: dict[str, Any]) -> str:
    """A notebook's text and code as a page."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(parts) + "\n"
