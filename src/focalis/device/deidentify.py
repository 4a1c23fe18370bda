"""De-identified copies by the Basic Application Level Confidentiality Profile (PS3.15 annex E, table E.1-1).

The table is that of `dicom-anonymizer`; what is done by it is done here, so that the same object always becomes the
same bytes, and UIDs stay consistent over all objects and times.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Literal

from pydicom import DataElement, Dataset, FileDataset, dcmread
from pydicom.datadict import dictionary_has_tag
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import SecondaryCaptureImageStorage

from focalis.device.config import Dates
from focalis.errors import DataError

Action = Literal["remove", "empty", "dummy", "map"]

METHOD = "Focalis, PS3.15 E.1 basic profile"
_STANDARD_ROOT = "1.2.840.10008."
_NAMES_OF_SCHEMES = ("CodingSchemeUID", "ContextUID", "MappingResourceUID", "ContextGroupExtensionCreatorUID")
_LONGEST_SHIFT_DAYS = 3650
_NAMING = (
    "PatientID",
    "PatientName",
    "AccessionNumber",
    "ReferringPhysicianName",
    "OperatorsName",
    "ContentCreatorName",
)
_LEAST_LETTERS = 4
_TEXTS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")
_PATIENT, _CURVES, _OVERLAYS = 0x0010, range(0x5000, 0x5100), range(0x6000, 0x6100)
_DUMMIES: Mapping[str, object] = {
    **dict.fromkeys(("AE", "CS"), "ANONYMIZED"),
    **dict.fromkeys(("LO", "LT", "PN", "SH", "ST", "UC", "UT"), "Anonymized"),
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"), 0),
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "UR": "http://anonymized.invalid",
    "SQ": [],
}
_OWN_DESCRIPTIONS = (
    "SeriesDescription",
    "ROIName",
    "ROIObservationLabel",
    "StructureSetLabel",
    "ContentLabel",
    "ContentDescription",
)
"""Of results the device composes these of its own words and the model's labels (Clean Descriptors Option)."""
_OWN_REMOVED = ("SegmentDescription",)
"""It may name the reviewer; the table does not know it."""
_OWN_TEXTS = {"111001", "111003", "112039", "121013", "121014", "121015"}
"""Concepts of DCM whose text in a report is the device's own: algorithm, tracking identifier, device observer."""


@dataclass(frozen=True)
class Pseudonyms:
    """What takes the place of identifiers: always the same for the same key, and nothing to go back by without it.

    Attributes:
        key: a secret of the device and the destination.
    """

    key: bytes

    def uid(self, uid: str) -> str:
        """The UID in the place of another one; UIDs of the standard stay (PS3.5 B.2)."""
        if not uid or uid.startswith(_STANDARD_ROOT):
            return uid
        return f"2.25.{int.from_bytes(self._digest('uid', uid)[:16])}"

    def patient(self, identity: str) -> str:
        """The patient's ID and name."""
        return f"R{self._digest('patient', identity).hex()[:16].upper()}"

    def shift(self, identity: str) -> timedelta:
        """How much earlier a patient's dates become."""
        return timedelta(1 + int.from_bytes(self._digest("days", identity)[:8]) % _LONGEST_SHIFT_DAYS)

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.digest(self.key, f"{kind}\0{text}".encode(), hashlib.sha256)


def deidentify(path: Path, out: Path, pseudonyms: Pseudonyms, dates: Dates, own: bool) -> None:
    """Write the de-identified copy of an object.

    Args:
        pseudonyms: what takes the place of UIDs, ID and name.
        dates: what becomes of dates and times: removed, shifted by days of each patient, or kept. Those that describe
            the patient are always removed.
        own: whether the device made the object; its own descriptions are kept then.

    Raises:
        DataError: the object cannot be read or written, or may have text about a person in its pixels.
    """
    try:
        data = dcmread(path)
        refuse_burned_in(data)
        identity = "\\".join(str(data.get(key, "") or "") for key in ("IssuerOfPatientID", "PatientID"))
        if not data.get("PatientID"):
            identity = str(data.get("StudyInstanceUID", ""))
        names = _names(data)
        _Cleaner(pseudonyms, dates, pseudonyms.shift(identity), own).clean(data)
        if names is not None:
            data.walk(lambda item, element: _strike(item, element, names))
        data.PatientID = data.PatientName = pseudonyms.patient(identity)
        _state_method(data, dates, own)
        data.file_meta = _meta(data)
        data.preamble = bytes(128)
        out.parent.mkdir(parents=True, exist_ok=True)
        data.save_as(out, enforce_file_format=True)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot be de-identified ({error.strerror}); check the disk") from error
    except Exception as error:  # whatever a reader may fall over: nothing may go out half done
        raise DataError(f"cannot be de-identified ({type(error).__name__}); look at the object") from error


def copies(files: Sequence[tuple[str, str, bool]], key: str, dates: Dates) -> list[str]:
    """De-identified copies of some objects; runs in the worker.

    Args:
        files: the object, the file to write, and whether the device made the object.
        key: of the pseudonyms, hexadecimal.
        dates: as in `deidentify`.

    Returns:
        Why each could not be made; empty if it was.
    """
    pseudonyms, said = Pseudonyms(bytes.fromhex(key)), []
    for path, out, own in files:
        try:
            deidentify(Path(path), Path(out), pseudonyms, dates, own)
            said.append("")
        except DataError as error:
            said.append(str(error))
    return said


def is_deidentified(path: Path) -> bool:
    """Whether a file says of itself that it was made by `deidentify`."""
    header = dcmread(path, specific_tags=["PatientIdentityRemoved", "DeidentificationMethod"], force=True)
    return (header.get("PatientIdentityRemoved"), header.get("DeidentificationMethod")) == ("YES", METHOD)


def refuse_burned_in(data: Dataset) -> None:
    """Refuse an image that has, or may have, text about a person in its pixels.

    Raises:
        DataError: it says so, or it is a secondary capture or a screen shot and does not deny it.
    """
    stated = str(data.get("BurnedInAnnotation", "") or "").strip().upper()
    image_type = " ".join(map(str, data.get("ImageType") or ())).upper()
    drawn = data.get("SOPClassUID") == SecondaryCaptureImageStorage or "ConversionType" in data
    if stated == "YES" or (stated != "NO" and (drawn or "SCREEN" in image_type)):
        raise DataError("may have a name burned into its pixels; it is not sent as de-identified")


def _names(data: Dataset) -> re.Pattern[str] | None:
    """The words by which the object names the patient and persons, as they may stand in other attributes too."""
    told = [str(data.get(key, "") or "") for key in _NAMING]
    words = {word for each in told for word in re.split(r"[\s^=\\,]+", each) if len(word) >= _LEAST_LETTERS}
    return (
        re.compile(rf"(?<!\w)({'|'.join(map(re.escape, sorted(words)))})(?!\w)", re.IGNORECASE)
        if words
        else None
    )


def _strike(data: Dataset, element: DataElement, names: re.Pattern[str]) -> None:
    """Remove a text in which the patient is named all the same."""
    if (
        element.VR in _TEXTS
        and element.value != _DUMMIES[element.VR]
        and names.search(str(element.value or ""))
    ):
        del data[element.tag]


@cache
def profile() -> Mapping[int, Action]:
    """Tag to action of the basic profile; where the table leaves a choice, the one that keeps an object valid."""
    from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table

    kinds: tuple[tuple[Action, tuple[str, ...]], ...] = (
        ("remove", ("X_TAGS",)),
        ("empty", ("Z_TAGS", "X_Z_TAGS")),
        ("dummy", ("D_TAGS", "Z_D_TAGS", "X_D_TAGS", "X_Z_D_TAGS")),
        ("map", ("U_TAGS", "X_Z_U_STAR_TAGS")),
    )
    return {
        (tag[0] << 16) + tag[1]: action
        for action, names in kinds
        for name in names
        for tag in getattr(table, name)
        if len(tag) == 2
    }


@dataclass(frozen=True)
class _Cleaner:
    """Applies the profile to a data set in place."""

    pseudonyms: Pseudonyms
    dates: Dates
    shift: timedelta
    own: bool

    def clean(self, data: Dataset) -> None:
        for tag in list(data.keys()):
            group = tag.group
            if tag.is_private or group in _CURVES or group in _OVERLAYS or not dictionary_has_tag(tag):
                del data[tag]  # what nobody knows may hold anything
                continue
            element = data[tag]
            if element.keyword == "ContentSequence":
                self._clean_content(data, element)
            elif element.VR in ("DA", "DT", "TM") and self.dates != "remove" and group != _PATIENT:
                self._date(data, element)
            elif self.own and element.keyword in _OWN_REMOVED:
                del data[tag]
            elif self.own and element.keyword in _OWN_DESCRIPTIONS:
                continue
            else:
                self._apply(data, element)

    def _apply(self, data: Dataset, element: DataElement) -> None:
        action = profile().get(element.tag)
        if action == "remove":
            del data[element.tag]
        elif action == "empty" or (action is None and element.VR == "PN"):
            element.value = [] if element.VR == "SQ" else None
        elif action == "dummy" and element.VR != "UI":
            if element.VR in _DUMMIES:
                element.value = _DUMMIES[element.VR]
            else:
                del data[element.tag]
        elif element.VR == "SQ":
            for item in element.value:
                self.clean(item)
        elif element.VR == "UI" and element.keyword not in _NAMES_OF_SCHEMES:
            many = element.VM > 1
            element.value = (
                [*map(self.pseudonyms.uid, element.value)]
                if many
                else self.pseudonyms.uid(element.value or "")
            )
        elif action is None and element.VR in ("DA", "DT"):
            element.value = None

    def _date(self, data: Dataset, element: DataElement) -> None:
        if self.dates == "keep" or element.VR == "TM":
            return
        try:
            values = [str(each) for each in (element.value if element.VM > 1 else [element.value or ""])]
            moved = [value and self._moved(value) for value in values]
            element.value = moved if len(moved) > 1 else moved[0]
        except (ValueError, OverflowError):  # no date that can be moved
            self._apply(data, element)
            if element.tag in data and element.value in values:
                element.value = None

    def _moved(self, value: str) -> str:
        day = date(int(value[:4]), int(value[4:6]), int(value[6:8])) - self.shift
        return f"{day:%Y%m%d}{value[8:]}"

    def _clean_content(self, data: Dataset, element: DataElement) -> None:
        """The content of a report (Clean Structured Content Option): codes, numbers and references stay."""
        kept = []
        for item in element.value:
            kind = item.get("ValueType")
            name = (item.get("ConceptNameCodeSequence") or [Dataset()])[0]
            scheme, code = name.get("CodingSchemeDesignator"), name.get("CodeValue")
            if kind == "TEXT" and not (self.own and scheme == "DCM" and code in _OWN_TEXTS):
                continue
            if kind in ("DATE", "TIME", "DATETIME") and self.dates == "remove":
                continue
            text = item.get("TextValue")
            self.clean(item)
            if kind == "TEXT":
                item.TextValue = text
            elif kind == "PNAME":
                item.PersonName = "Anonymized"
            kept.append(item)
        if kept:
            element.value = kept
        else:
            del data[element.tag]


def _state_method(data: Dataset, dates: Dates, own: bool) -> None:
    data.PatientIdentityRemoved = "YES"
    data.DeidentificationMethod = METHOD
    stated = [codes.DCM.BasicApplicationConfidentialityProfile]
    if "ContentSequence" in data:
        stated.append(codes.DCM.CleanStructuredContentOption)
    if own:
        stated.append(codes.DCM.CleanDescriptorsOption)
    if dates == "keep":
        stated.append(codes.DCM.RetainLongitudinalTemporalInformationFullDatesOption)
    if dates == "shift":
        stated.append(codes.DCM.RetainLongitudinalTemporalInformationModifiedDatesOption)
    data.DeidentificationMethodCodeSequence = [_coded(*code[:3]) for code in stated]
    told = {"keep": "UNMODIFIED", "shift": "MODIFIED", "remove": "REMOVED"}
    data.LongitudinalTemporalInformationModified = told[dates]


def _coded(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _meta(data: FileDataset) -> FileMetaDataset:
    """File meta information that names no application of the source."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    return meta
