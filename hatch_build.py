"""Beside the package the wheel holds the pages, the README and the examples, and their links lead somewhere there."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LEFT_OUT = {"docs": ("*.py", "__pycache__"), "examples": ("__pycache__",)}
"""The folders, and what stays behind: caches, and the programs that make the pages."""


class Pages(BuildHookInterface):
    """Adds them to a wheel that is not an editable one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Copy them, and turn their links."""
        if version == "editable":
            return
        root, self.copies = Path(self.root), Path(tempfile.mkdtemp())
        shutil.copy(root / "README.md", self.copies)
        for name, patterns in LEFT_OUT.items():
            shutil.copytree(root / name, self.copies / name, ignore=shutil.ignore_patterns(*patterns))
        build_data["force_include"][str(self.copies)] = "focalis"
        for page in self.copies.rglob("*.md"):
            page.write_text(turned(page.read_text(encoding="utf-8")), encoding="utf-8")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove the copies."""
        if version != "editable":
            shutil.rmtree(self.copies)


def turned(page: str) -> str:
    """Lead links to src/focalis into the package; of those to what only the repository has leave the text."""
    page = re.sub(r"\]\(((?:\.\./)*)src/focalis/", r"](\1", page)
    return re.sub(r"\[([^\]]+)\]\((?:CHANGELOG\.md|CITATION\.cff|CONTRIBUTING\.md|LICENSE)\)", r"\1", page)
