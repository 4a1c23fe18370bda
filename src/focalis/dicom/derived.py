"""What all objects that Focalis derives from a series share: patient, study, device, time and UIDs.

A result's UIDs are derived from all that goes into it, so that the same result of the same images is the same
object, byte for byte, however often it is made. That is why its time is by default the time of the images, not
the clock's.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import UID

from focalis.dicom.headers import read_header, text
from focalis.dicom.series import Series
from focalis.dicom.source_identity import NAMESPACE, SourceIdentity, require_uids, source_identity
from focalis.errors import DataError
from focalis.identity import ModelIdentity

Kind: TypeAlias = Literal["SEG", "RTSTRUCT", "SR", "SC"]
"""What kind of object a result is, as its Modality; SC is a Secondary Capture."""

Mark: TypeAlias = Literal["PARTIAL", "WITHOUT CHANNEL", "OUT OF SCOPE", "TRAINING CASE", "FAILED TRAINING"]
"""Why to doubt a result, in a word or two."""

MANUFACTURER = "Focalis"
NOTICE = "for research use only"
GIVEN_MASKS = ModelIdentity("masks that were given")
"""Stands for a model where a person or another program drew the masks."""

_LONG_STRING = 64  # characters of a value of type LO (PS3.5 6.2)
_SHORT_TEXT = 1024  # of type ST

_TIMES = (
    ("ContentDate", "ContentTime"),
    ("AcquisitionDate", "AcquisitionTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
)


@dataclass(frozen=True)
class Superseded:
    """An earlier object, made of fewer images, that a result replaces."""

    instance_uid: str
    series_uid: str

    @property
    def remark(self) -> str:
        """The words by which objects without an attribute for it refer to it."""
        return f"Supersedes {self.instance_uid}"


@dataclass(frozen=True)
class Caution:
    """A reason to doubt a result, written into each of its objects.

    Attributes:
        mark: for the object's description.
    """

    mark: Mark
    text: str


_MARKED = re.compile(f"(?:^|; )({'|'.join(get_args(Mark))}): ")


@dataclass(frozen=True)
class Origin:
    """How a result was made, as all of its objects state it.

    Attributes:
        created: when the result was made; by default it has the date and time of the series' first image, so that a
            repetition is the same object, and now if that has none. A time with a zone is brought into the zone that
            the images state, and into this machine's if they state none.
        reviewer: the person who accepted each lesion; empty if nobody did. Up to 64 characters are kept.
        edition: which result of its series it is, from 1; told in the Series Description from the second on.
        cautions: why not to take it at its word.
        by: the model's name on the device, told in the Series Description; empty if it is not.
        pointed: whether a person pointed at each lesion, so that the model did not search for them.
    """

    model: ModelIdentity
    version: str
    created: datetime | None = None
    reviewer: str = ""
    edition: int = 1
    cautions: tuple[Caution, ...] = ()
    by: str = ""
    pointed: bool = False

    @property
    def algorithm_type(self) -> Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]:
        """How much of it is a person's work (PS3.3 C.8.20.2: Segment Algorithm Type). Given masks count as manual."""
        if self.model == GIVEN_MASKS:
            return "MANUAL"
        return "SEMIAUTOMATIC" if self.reviewer or self.pointed else "AUTOMATIC"


def read_origin(path: Path) -> Origin:
    """The model, the version and the cautions that a Segmentation by Focalis states.

    Raises:
        DataError: the file cannot be read.
    """
    header = read_header(
        path, ("DerivationDescription", "DeviceSerialNumber", "SoftwareVersions", "SegmentSequence")
    )
    segment = (header.get("SegmentSequence") or [Dataset()])[0]
    algorithm = (segment.get("SegmentationAlgorithmIdentificationSequence") or [Dataset()])[0]
    model = ModelIdentity.parse(text(algorithm, "AlgorithmParameters"), text(header, "DeviceSerialNumber"))
    _, *parts = _MARKED.split(text(header, "DerivationDescription"))
    marks: list[Any] = parts[::2]
    cautions = tuple(Caution(mark, said) for mark, said in zip(marks, parts[1::2], strict=True))
    return Origin(model, text(header, "SoftwareVersions"), cautions=cautions)


@dataclass(frozen=True)
class LabelledSeries:
    """A labelled series about to be written as a DICOM object.

    Attributes:
        kind: SEG, RTSTRUCT, SR or SC.
        label: label values on its grid, z, y, x; 0 is the background.
        origin: how it was made, its texts fit for DICOM.
        moment: the date and time that the object bears.
        identity: what it tells of patient and study.
        supersedes: the earlier object that this one replaces.
        tracking: label value to the Tracking UID that the lesion bears on every date; empty if none is followed.
    """

    kind: Kind
    series: Series
    label: NDArray[np.integer]
    names: dict[int, str]
    origin: Origin
    moment: datetime
    identity: SourceIdentity
    supersedes: Superseded | None = None
    tracking: Mapping[int, str] = field(default_factory=dict)

    @property
    def derivation(self) -> str:
        """What the result replaces and its cautions, in at most 1024 characters (ST); often empty."""
        replaced = [] if self.supersedes is None else [self.supersedes.remark]
        return "; ".join([*replaced, *(f"{each.mark}: {each.text}" for each in self.origin.cautions)])[
            :_SHORT_TEXT
        ]

    def uid(self, part: str) -> UID:
        """A UID for one part of the object ("instance", "series"), derived from all of this result.

        A name-based UUID as a decimal number below 2.25 (PS3.5 B.2).
        """
        return UID(f"2.25.{uuid.uuid5(NAMESPACE, f'{part} of {self._digest}').int}")

    @cached_property
    def _digest(self) -> str:
        origin = self.origin
        told = (
            self.kind,
            str(origin.model),
            origin.version,
            self.moment.isoformat(),
            sorted(self.names.items()),
            self.series.instance_uids,
            self.series.frame_numbers,
            self.label.shape,
            *([self.supersedes.instance_uid] if self.supersedes else []),
            *([f"reviewed by {origin.reviewer}"] if origin.reviewer else []),
            *([f"edition {origin.edition}"] if origin.edition > 1 else []),
            *([f"by {origin.by}"] if origin.by else []),
            *(["pointed at"] if origin.pointed else []),
            *(f"{each.mark}: {each.text}" for each in origin.cautions),
            *([sorted(self.tracking.items())] if self.tracking else []),
        )
        digest = hashlib.sha256(repr(told).encode())
        for plane in self.label:
            digest.update(np.ascontiguousarray(plane, dtype="<i8").tobytes())
        return digest.hexdigest()


def describe_result(
    kind: Kind,
    label: NDArray[np.integer],
    names: Mapping[int, str],
    series: Series,
    origin: Origin,
    supersedes: Superseded | None = None,
    tracking: Mapping[int, str] | None = None,
) -> LabelledSeries:
    """Check what is to be written; see `LabelledSeries`.

    Args:
        label: integer values on the series' grid, z, y, x.
        names: label value to name; 0 may be named and is passed over.
        supersedes: the earlier object that this one replaces.
        tracking: label value to Tracking UID.

    Raises:
        DataError: the label map does not fit the series, a value has no name, a name cannot be stored, or an image
            has no valid UID to refer to.

    Warns:
        AttributeWarning: what the source says of patient or study is not valid, and left out.
    """
    if label.shape != series.volume.array.shape:
        raise DataError.at(
            series.folder,
            f"a label map of shape {label.shape} does not fit the series of {series.volume.array.shape} (z, y, x)",
            "bring it onto the series' grid first",
        )
    named = {int(value): name for value, name in sorted(names.items()) if value != 0}
    if not named:
        raise DataError("a label map without named labels cannot be written as DICOM; name its labels")
    if strangers := sorted(set(np.unique(label).tolist()) - {0, *named}):
        raise DataError(f"the label value {strangers[0]} has no name; name every label, or clear it")
    for value, name in named.items():
        if (
            value < 0
            or not name.strip()
            or len(name) > _LONG_STRING
            or not name.isprintable()
            or "\\" in name
        ):
            raise DataError(
                f"the label {value}, {name!r}, cannot be written as DICOM; number labels from 1, and name them "
                f"with 1 to {_LONG_STRING} characters, no backslash among them"
            )
    if len(set(named.values())) != len(named):
        raise DataError("two labels share a name; give each label a name of its own")
    require_uids(series)
    identity = source_identity(series)
    identity.warn(series)
    created = origin.created
    if created is not None and created.tzinfo is not None:
        created = created.astimezone(_zone(identity.values.get("TimezoneOffsetFromUTC")))
    moment = created or _moment(series.header) or datetime.now()
    moment = moment.replace(microsecond=0, tzinfo=None)
    storable = replace(
        origin,
        model=replace(origin.model, name=_storable(origin.model.name)),
        version=_storable(origin.version)[:_LONG_STRING],
        reviewer=_storable(origin.reviewer)[:_LONG_STRING],
        by=_storable(origin.by),
        cautions=tuple(replace(each, text=_storable(each.text)) for each in origin.cautions),
    )
    return LabelledSeries(
        kind, series, label, named, storable, moment, identity, supersedes, dict(tracking or {})
    )


def _storable(value: str) -> str:
    """Text without DICOM's value separator and control characters (PS3.5 6.1.2.1)."""
    return "".join(character if character.isprintable() else " " for character in value).replace("\\", "/")


def _zone(offset: object) -> timezone | None:
    """The zone of a valid Timezone Offset From UTC, as "-0330"; None for this machine's."""
    if not isinstance(offset, str):
        return None
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))


def _moment(header: Dataset) -> datetime | None:
    """When the series was acquired, by the first date that it states."""
    for date, time in _TIMES:
        with suppress(ValueError):
            day = datetime.strptime(text(header, date), "%Y%m%d")
            with suppress(ValueError):
                digits = text(header, time).partition(".")[0].replace(":", "")
                clock = datetime.strptime(digits.ljust(6, "0"), "%H%M%S")
                day = datetime.combine(day, clock.time())
            return day
    return None
