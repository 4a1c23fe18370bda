"""Which model made a result: one identity, the same in every table, record and DICOM object."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class ModelIdentity:
    """The identity of a model.

    Attributes:
        name: its file's name without the suffix, or its folder's name if the file is called model; empty for a model
            that was never saved.
        file_sha256: hash of the whole file, hexadecimal; empty for a model that was never saved.
        weights_sha256: hash of the weights alone, hexadecimal: two files with it segment by the same networks.
    """

    name: str = ""
    file_sha256: str = ""
    weights_sha256: str = ""

    def record(self) -> dict[str, str]:
        """What is known of it, for tables, records and DICOM objects."""
        told = {
            "model": self.name,
            "model_file_sha256": self.file_sha256,
            "model_sha256": self.weights_sha256,
        }
        return {key: value for key, value in told.items() if value}

    def __str__(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.record().items())

    @property
    def short(self) -> str:
        """The hash of the weights, or a name without one, in up to 64 characters: a DICOM serial number."""
        return self.weights_sha256 or self.name[:64]

    @classmethod
    def parse(cls, text: str, short: str) -> Self:
        """The identity that an object states.

        Args:
            text: its `str`, with or without spaces after the commas; objects of older versions state less.
        """
        found = re.fullmatch(
            r"(?:model=(.*?))?(?:,? ?model_file_sha256=([0-9a-f]{64}))?(?:,? ?model_sha256=([0-9a-f]{64}))?",
            text.strip(),
            re.DOTALL,
        )
        name, file, weights = found.groups(default="") if found else ("", "", "")
        if not weights and re.fullmatch("[0-9a-f]{64}", short):
            name, weights = "" if name == short else name, short
        return cls(name if weights else name or short, file, weights)
