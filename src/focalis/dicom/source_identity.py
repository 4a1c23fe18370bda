"""What results copy from their source: only valid values, each checked against its VR (PS3.5 6.2)."""

from __future__ import annotations

import math
import re
import uuid
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydicom import Dataset
from pydicom.config import RAISE
from pydicom.datadict import dictionary_description, dictionary_VM, dictionary_VR
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.valuerep import validate_value

from focalis.dicom.headers import quiet, text, value_is_absent
from focalis.dicom.series import Series
from focalis.errors import DataError, FileWarning

NAMESPACE = uuid.UUID("b51f70a6-3f1c-4c0e-9d0f-2a1c54c77b1e")
"""Root of all UIDs that Focalis derives."""

# PS3.3 C.7.1.1 Patient, C.7.2.1 General Study: of type 2, empty if the source has no valid value
TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "PositionReferenceIndicator",
)
# of the same modules, C.7.2.2 Patient Study and C.7.6.1 General Image: of type 3 or 1C
OPTIONAL = (
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyDescription",
    "TimezoneOffsetFromUTC",
)
# a mask of images that were compressed with loss says so (PS3.3 C.7.6.1.1.5)
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")

_CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
_ENUMERATED = {
    "PatientSex": {"M", "F", "O"},
    "PatientIdentityRemoved": {"YES", "NO"},
    "LossyImageCompression": {"00", "01"},
}
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?")
_TIMEZONE = re.compile(r"-(0\d|1[0-2])[0-5]\d|\+(0\d|1[0-4])[0-5]\d")


class AttributeWarning(FileWarning):
    """A result leaves out an attribute of its source whose value is not valid."""


@dataclass(frozen=True)
class SourceIdentity:
    """What a result states about its source.

    Attributes:
        values: keyword to valid value; of the optional ones only those that the source has.
        study_uid: the Study Instance UID; one that Focalis derives if the source has no valid one.
        frame_of_reference: the Frame of Reference UID, likewise.
        left_out: what is not copied and why, a phrase each that quotes no value.
    """

    values: Mapping[str, object] = field(repr=False)
    study_uid: str
    frame_of_reference: str
    left_out: tuple[str, ...]

    def warn(self, series: Series) -> None:
        """Warn of what is left out, in one line that names the folder."""
        if self.left_out:
            warnings.warn(
                AttributeWarning(
                    series.folder, "; ".join(self.left_out), "correct the images' headers if results need it"
                ),
                stacklevel=3,
            )


def source_identity(series: Series) -> SourceIdentity:
    """The identity that the results of a series carry.

    An invalid value is left out rather than corrected: a changed value could name another patient.
    """
    header = series.header
    values: dict[str, object] = {}
    left_out = []
    for keyword in (*TYPE_2, *OPTIONAL, *LOSSY):
        try:
            value = _value(header, keyword)
        except ValueError as error:
            value = None
            left_out.append(f"its {dictionary_description(keyword)} {error} and is left out of the result")
        if value is not None:
            values[keyword] = value
        elif keyword in TYPE_2:
            values[keyword] = ""
    if values.get("PatientIdentityRemoved") == "YES" and not (
        {"DeidentificationMethod", "DeidentificationMethodCodeSequence"} & set(values)
    ):
        values["DeidentificationMethod"] = "not stated"  # the standard demands one (type 1C)
    own = text(header, "SeriesInstanceUID")
    study, remark = _uid(header, "StudyInstanceUID", f"study of {own}", needed=True)
    frame, other = _uid(header, "FrameOfReferenceUID", f"frame of reference of {own}", needed=False)
    return SourceIdentity(values, study, frame, (*left_out, *remark, *other))


def require_uids(series: Series) -> None:
    """Make sure that results can refer to the images of a series.

    Raises:
        DataError: its Series Instance UID, or the SOP Instance UID of an image, is not valid, or two images share one.
    """
    wrong, advice = (
        "is not a valid UID, so that no DICOM result can refer to it",
        "give the images valid UIDs",
    )
    if not is_uid(text(series.header, "SeriesInstanceUID")):
        raise DataError.at(series.folder, f"the Series Instance UID {wrong}", advice)
    owners: dict[str, Path] = {}
    for file, instance in zip(series.files, series.instance_uids, strict=True):
        if not is_uid(instance):
            raise DataError.at(file, f"the SOP Instance UID {wrong}", advice)
        if (owner := owners.setdefault(instance, file)) != file:
            fault = f"has the SOP Instance UID of {owner.name}, so no DICOM result can tell the two apart"
            raise DataError.at(file, fault, "give each image a UID of its own")


def is_uid(value: str) -> bool:
    """Whether a text is a UID of at most 64 characters (PS3.5 9.1).

    Zeros in front of a component, which the standard forbids, are common, and archives keep them: another UID would
    part a result from its study.
    """
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def _uid(header: Dataset, keyword: str, of: str, *, needed: bool) -> tuple[str, tuple[str, ...]]:
    """A UID of the source, or one derived from its invalid value, and what to report about it."""
    found = text(header, keyword)
    if is_uid(found):
        return found, ()
    name = dictionary_description(keyword)
    derived = f"2.25.{uuid.uuid5(NAMESPACE, f'{keyword} {found}' if found else of).int}"
    if found:
        return derived, (f"its {name} is not a valid UID, and the result has another one",)
    return derived, (f"its {name} is missing, and the result has one of its own",) if needed else ()


def _value(header: Dataset, keyword: str) -> object | None:
    """An attribute's value, decoded, so that it can be written in another character set; None if it is empty.

    Raises:
        ValueError: it is not valid; the message says why.
    """
    if value_is_absent(header, keyword):
        return None
    try:
        with quiet():
            value = header[keyword].value
    except Exception as error:  # values that pydicom cannot convert
        raise ValueError("cannot be read") from error
    if dictionary_VR(keyword) == "SQ":
        return _codes(value) or None
    parts = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    texts = [_text(part).strip() for part in parts]
    if not any(texts):
        return None
    if len(texts) > 1 and dictionary_VM(keyword) == "1":
        raise ValueError("has several values")
    for part in texts:
        _check(keyword, part)
    return texts[0] if len(texts) == 1 else texts


def _text(value: object) -> str:
    if isinstance(value, bytes | Sequence | Dataset):
        raise ValueError("is of another kind than the standard says")
    return "" if value is None else str(value)


def _codes(value: object) -> list[Dataset]:
    if not isinstance(value, Sequence):
        raise ValueError("is not a sequence")
    found = []
    for item in value:
        code = Dataset()
        for part in _CODE:
            copied = _value(item, part)
            if copied is None:
                raise ValueError(f"has an item without {dictionary_description(part)}")
            setattr(code, part, copied)
        found.append(code)
    return found


def _check(keyword: str, value: str) -> None:
    """Raise a ValueError that says why a value is not valid, without quoting it: it may name a patient."""
    vr = dictionary_VR(keyword)
    try:
        value.encode("utf-8")
        with quiet():
            validate_value(vr, value, RAISE)
    except ValueError as error:
        raise ValueError(f"is not valid for its VR {vr}") from error
    if not value.isprintable():
        raise ValueError("holds control characters")
    if "\\" in value:
        raise ValueError("has several values")
    stricter = _STRICTER.get(vr)
    if stricter is not None and not stricter(value):
        raise ValueError(f"is not valid for its VR {vr}")
    if value not in _ENUMERATED.get(keyword, {value}):
        raise ValueError(f"is none of {', '.join(sorted(_ENUMERATED[keyword]))}")
    if keyword == "TimezoneOffsetFromUTC" and not _TIMEZONE.fullmatch(value):
        raise ValueError("is not an offset such as +0100")


def _is_date(value: str) -> bool:
    try:
        return len(value) == 8 and value.isdecimal() and bool(datetime.strptime(value, "%Y%m%d"))
    except ValueError:
        return False


def _is_name(value: str) -> bool:
    """Up to three groups of up to five components and 64 characters (PS3.5 6.2.1)."""
    groups = value.split("=")
    return len(groups) <= 3 and all(len(group) <= 64 and group.count("^") <= 4 for group in groups)


# what pydicom lets pass: ranges of dates and times, days that no month has, numbers without an end
_STRICTER: Mapping[str, Callable[[str], bool]] = {
    "DA": _is_date,
    "TM": lambda value: _TIME.fullmatch(value) is not None,
    "DS": lambda value: math.isfinite(float(value)),
    "PN": _is_name,
}
