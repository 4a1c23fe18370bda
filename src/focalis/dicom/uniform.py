"""What must, and what should, agree among the slices of one volume apart from their geometry."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby

from pydicom import Dataset
from pydicom.uid import UID

from focalis.dicom import private
from focalis.dicom.headers import class_modality, items, modality_of, text

# keyword to the functional group of multi-frame images that holds it (PS3.3 C.7.6.16, C.8.13)
_GROUPS = {
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "NominalPercentageOfCardiacPhase": ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    "NominalPercentageOfRespiratoryPhase": (
        "RespiratorySynchronizationSequence",
        "NominalPercentageOfRespiratoryPhase",
    ),
    "KVP": ("CTXRayDetailsSequence", "KVP"),
    "RescaleSlope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "RescaleIntercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
    "RescaleType": ("PixelValueTransformationSequence", "RescaleType"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
}
_IN_FRAME_TYPES = ("ComplexImageComponent", "AcquisitionContrast")
_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")

KEYWORDS = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "IssuerOfPatientID",
    "StudyInstanceUID",
    "Modality",
    "SOPClassUID",
    "ImageType",
    "Units",
    "SUVType",
    "CountsSource",
    "RescaleType",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelRepresentation",
    "PhotometricInterpretation",
    "DecayCorrection",
    "CorrectedImage",
    "AttenuationCorrectionMethod",
    "ReconstructionMethod",
    "AcquisitionNumber",
    "EchoTime",
    "EchoNumbers",
    "DiffusionBValue",
    "SequenceName",
    "InversionTime",
    "FlipAngle",
    "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase",
    "NominalPercentageOfRespiratoryPhase",
    "SeriesNumber",
    "ConvolutionKernel",
    "KVP",
    "ContrastBolusAgent",
    "SliceThickness",
    "ScatterCorrectionMethod",
    "RandomsCorrectionMethod",
    "PatientPosition",
    "Laterality",
    "ImageLaterality",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    *_IN_FRAME_TYPES,
)
"""The attributes that `told` gathers; those of a single-frame file and of a multi-frame file's header."""

MAPPING = "RealWorldValueMappingSequence"
"""A second scale of the values (PS3.3 C.7.6.16.2.11); of images and, as a functional group, of frames."""

_PROJECTIONS = frozenset(
    {"MIP", "MINIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "VOLUME_RENDER", "SURFACE_RENDER"}
)
"""Parts of an Image Type that say that a pixel shows a whole ray, and not a place (PS3.3 C.8.16.1)."""

_MAPS = _PROJECTIONS | frozenset(
    {
        "M",
        "MAGNITUDE",
        "P",
        "PHASE",
        "R",
        "REAL",
        "I",
        "IMAGINARY",
        "W",
        "WATER",
        "F",
        "FAT",
        "IP",
        "IN_PHASE",
        "OP",
        "OPP_PHASE",
        "OUT_PHASE",
        "ADC",
        "FA",
        "TRACEW",
        "LOCALIZER",
        "PHASE_MAP",
        "VELOCITY",
        "T1",
        "T2",
        "T2_STAR",
        "DIFFUSION",
        "DIFFUSION_ANISO",
        "MONOENERGETIC",
        "SUBTRACT",
        "SUBTRACTION",
    }
)
"""Parts of an Image Type that say what a voxel's value is (PS3.3 C.8.3.1.1.1, C.8.13.3.1; Philips, Siemens)."""


def told(header: Dataset, own: Dataset | None, shared: Dataset | None, where: str) -> Mapping[str, str]:
    """The properties of a slice, keyword to text; "" if a property is missing.

    Args:
        own: the frame's functional groups; None of a single-frame file.
        shared: the functional groups that all frames share; None of a single-frame file.

    Raises:
        DataError: a functional group is damaged.
    """
    found = {keyword: text(header, keyword) for keyword in KEYWORDS}
    mappings = items(header, MAPPING, where)
    if own is not None and shared is not None:
        mappings = items(own, MAPPING, where) or items(shared, MAPPING, where) or mappings
        for keyword, (group, name) in _GROUPS.items():
            held = items(own, group, where) or items(shared, group, where)
            if held:
                found[keyword] = text(held[0], name) or found[keyword]
        for group in _FRAME_TYPES:
            held = items(own, group, where) or items(shared, group, where)
            if held:
                found["ImageType"] = text(held[0], "FrameType") or found["ImageType"]
                found |= {name: value for name in _IN_FRAME_TYPES if (value := text(held[0], name))}
    found["Modality"] = modality_of(header)
    found["ClassModality"] = class_modality(header)
    groups = private.groups_of(own, shared)
    found["DiffusionBValue"] = found["DiffusionBValue"] or private.b_value(header, groups)
    found["PossibleBValue"] = "" if found["DiffusionBValue"] else private.possible_b_value(header, groups)
    found["PhilipsScale"] = private.philips_scale(header, found["RescaleSlope"], groups)
    found["RealWorldValue"] = _other_scale(found, mappings)
    return found


def _other_scale(said: Mapping[str, str], mappings: Sequence[Dataset]) -> str:
    """The first Real World Value Mapping of a slice; "" if there is none, or one says the same as the Rescale."""
    found = []
    for mapping in mappings:
        if "RealWorldValueLUTData" in mapping:
            found.append("a table")
            continue
        numbers = [text(mapping, keyword) for keyword in ("RealWorldValueSlope", "RealWorldValueIntercept")]
        rescale = [said["RescaleSlope"] or "1", said["RescaleIntercept"] or "0"]
        with suppress(ValueError):
            if all(
                math.isclose(float(a), float(b), rel_tol=1e-3) for a, b in zip(numbers, rescale, strict=True)
            ):
                return ""
        unit = next(
            (text(code, "CodeValue") for code in mapping.get("MeasurementUnitsCodeSequence") or ()), ""
        )
        found.append(f"slope {numbers[0] or 'none'}, intercept {numbers[1] or 'none'}, unit {unit or 'none'}")
    return found[0] if found else ""


def _parts(value: str) -> list[str]:
    """The parts of a value of several, as pydicom shows them."""
    return [part for part in re.sub(r"[\[\]']", "", value).upper().replace("\\", ",").split(",") if part]


def _person(said: Mapping[str, str]) -> str:
    """The patient, without differences in spelling; the name counts only if there is no ID."""
    name = " ".join(re.split(r"[\s^=]+", said["PatientName"].casefold())).strip()
    return said["PatientID"].casefold() or name


def _map(said: Mapping[str, str]) -> str:
    return ", ".join(sorted({part.strip() for part in _parts(said["ImageType"])} & _MAPS))


def _number(keyword: str, step: float) -> Callable[[Mapping[str, str]], str]:
    """An attribute's number in steps, so that rounding does not count."""

    def read(said: Mapping[str, str]) -> str:
        try:
            return f"{round(float(said[keyword]) / step) * step:g}"
        except (ValueError, OverflowError):
            return said[keyword]

    return read


def _said(keyword: str) -> Callable[[Mapping[str, str]], str]:
    return lambda said: said[keyword].upper()


def _present(keyword: str) -> Callable[[Mapping[str, str]], str]:
    return lambda said: "present" if said[keyword] else ""


Reading = Callable[[Mapping[str, str]], str]
_SALT = os.urandom(8)


def _unnamed(reading: Reading) -> Reading:
    """Tells patients apart without naming them: messages may end up in a log."""

    def tag(said: Mapping[str, str]) -> str:
        value = reading(said)
        return hashlib.sha256(_SALT + value.encode()).hexdigest()[:4] if value else ""

    return tag


_ONE_PATIENT = "they are of several patients: give the files of one"
_ONE_VOLUME = "they are not one volume: give the files of one"
_WHOLE = "export the series again, with its whole headers"
REQUIRED: tuple[tuple[str, Reading, str], ...] = (
    ("Patient ID (or name)", _unnamed(_person), _ONE_PATIENT),
    ("patient's birth date", _unnamed(_said("PatientBirthDate")), _ONE_PATIENT),
    ("issuer of the Patient ID", _unnamed(_said("IssuerOfPatientID")), _ONE_PATIENT),
    ("patient's sex", _unnamed(_said("PatientSex")), _ONE_PATIENT),
    ("study", _said("StudyInstanceUID"), "give the files of one study"),
    ("Modality", _said("Modality"), _ONE_VOLUME),
    ("kind of image (SOP Class)", lambda said: UID(said["SOPClassUID"]).name, _ONE_VOLUME),
    ("Units", _said("Units"), "their values cannot be compared: give the files of one unit"),
    ("SUV Type", _said("SUVType"), "their values cannot be compared: give the files of one type"),
    ("Counts Source", _said("CountsSource"), _ONE_VOLUME),
    ("Rescale Slope", _present("RescaleSlope"), _WHOLE),
    ("Rescale Intercept", _present("RescaleIntercept"), _WHOLE),
    ("Rescale Type", _said("RescaleType"), "their values cannot be compared: give the files of one unit"),
    ("Pixel Representation (signed or not)", _said("PixelRepresentation"), _WHOLE),
    ("Photometric Interpretation", _said("PhotometricInterpretation"), _WHOLE),
    ("Decay Correction", _said("DecayCorrection"), "their values cannot be compared: export them again"),
    (
        "corrections (Corrected Image)",
        lambda said: ", ".join(sorted(part.strip() for part in _parts(said["CorrectedImage"]))),
        "their values cannot be compared: export them again",
    ),
    ("what the values are (Image Type)", _map, _ONE_VOLUME),
    ("Complex Image Component", _said("ComplexImageComponent"), _ONE_VOLUME),
    ("Acquisition Contrast", _said("AcquisitionContrast"), _ONE_VOLUME),
    ("Echo Numbers", _said("EchoNumbers"), "give the files of one echo"),
    ("b-value", _number("DiffusionBValue", 1), "give the files of one b-value"),
    (
        "time point (Temporal Position)",
        _said("TemporalPositionIdentifier"),
        "give the files of one time point",
    ),
    ("cardiac phase", _number("NominalPercentageOfCardiacPhase", 0.1), "give the files of one phase"),
    ("respiratory phase", _number("NominalPercentageOfRespiratoryPhase", 0.1), "give the files of one phase"),
)
"""What must agree: how it is called, how it is read, and what to do where it differs."""


def _ct_scale(said: Mapping[str, str]) -> str:
    """The scale of a CT image, which scanners keep the same for all; empty for other images."""
    scale = (_number(name, 1e-6)(said) for name in ("RescaleSlope", "RescaleIntercept"))
    return ", ".join(scale) if said["Modality"] == "CT" else ""


_SHOULD_AGREE: tuple[tuple[str, Reading], ...] = (
    ("reconstruction kernel", _said("ConvolutionKernel")),
    ("reconstruction method", _said("ReconstructionMethod")),
    ("attenuation correction", _said("AttenuationCorrectionMethod")),
    ("scatter correction", _said("ScatterCorrectionMethod")),
    ("randoms correction", _said("RandomsCorrectionMethod")),
    ("tube voltage", _number("KVP", 1)),
    ("contrast agent", _said("ContrastBolusAgent")),
    ("Slice Thickness", _number("SliceThickness", 0.01)),
    ("Inversion Time", _number("InversionTime", 1)),
    ("Flip Angle", _number("FlipAngle", 0.1)),
    ("Philips' own scale (Rescale Slope times 2005,100E)", _said("PhilipsScale")),
    (
        "patient's name",
        _unnamed(lambda said: " ".join(re.split(r"[\s^=]+", said["PatientName"].casefold())).strip()),
    ),
    ("Patient Position", _said("PatientPosition")),
    ("Laterality", lambda said: said["ImageLaterality"] or said["Laterality"]),
    (
        "pulse sequence",
        lambda said: ", ".join(_parts(said["ScanningSequence"] + "\\" + said["SequenceVariant"])),
    ),
    ("Scan Options", lambda said: ", ".join(sorted(_parts(said["ScanOptions"])))),
    (
        "scanner",
        lambda said: " ".join(
            said[name] for name in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber")
        ).strip(),
    ),
    ("Rescale Slope or Intercept, although they are CT", _ct_scale),
    ("Image Type (ORIGINAL or DERIVED)", lambda said: ", ".join(_parts(said["ImageType"])[:1])),
)

# Two of these may follow each other along a volume, as bed positions do; they cannot take turns.
_IN_RUNS: tuple[tuple[str, Reading], ...] = (
    ("acquisition", _said("AcquisitionNumber")),
    ("flip angle", _number("FlipAngle", 0.1)),
    ("inversion time", _number("InversionTime", 1)),
    ("contrast agent", _said("ContrastBolusAgent")),
    ("reconstruction kernel", _said("ConvolutionKernel")),
    ("tube voltage", _number("KVP", 1)),
    ("series number", _said("SeriesNumber")),
)


def alternating(along: Sequence[Mapping[str, str]]) -> tuple[str, Reading] | None:
    """The first property whose values alternate along the normal, a sign of interleaved acquisitions.

    A number of its own for each slice is none, nor is a value that holds for one run of slices.
    """
    for name, reading in _IN_RUNS:
        values = [reading(said) for said in along]
        runs = Counter(value for value, _ in groupby(values))
        if max(runs.values()) > 1:
            return name, reading
    return None


def doubts(along: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Doubts about slices that may still form one volume, a phrase each."""
    found = []
    if along[0]["Modality"] == "CT" and not any(said["RescaleSlope"] for said in along):
        found.append("a CT series without Rescale Slope: its stored values are taken for Hounsfield units")
    if projections := {part.strip() for part in _parts(along[0]["ImageType"])} & _PROJECTIONS:
        found.append(f"its images are projections by their Image Type ({min(projections)}), and no slices")
    possible = Counter(said["PossibleBValue"] for said in along)
    if "" not in possible and 1 < len(possible) <= len(along) / 2:
        found.append("the slices differ in what may be a b-value (0043,1039): give the files of one if it is")
    if others := [said["RealWorldValue"] for said in along if said["RealWorldValue"]]:
        found.append(
            f"{len(others)} slices have a Real World Value Mapping ({others[0]}) that differs from their Rescale Slope "
            "and Intercept; the latter are used"
        )
    if along[0]["Modality"] != along[0]["ClassModality"]:
        found.append(
            f"its Modality is {along[0]['Modality']}, but it is stored as {along[0]['ClassModality']} images"
        )
    for name, reading in _SHOULD_AGREE:
        counts = Counter(reading(said) for said in along)
        if len(counts) > 1:
            shown = ", ".join(f"{value or 'none'} ({count})" for value, count in counts.most_common(4))
            found.append(f"the slices differ in {name}: {shown}")
    return tuple(found)
