"""Lesions as connected components of a mask: find them, measure them, match two sets of them."""

from focalis.lesions.candidates import Candidates, find_candidates, highest
from focalis.lesions.components import (
    CONNECTIVITY,
    LabelLesions,
    label_components,
    lesions_by_label,
    voxels_of,
)
from focalis.lesions.matching import (
    MATCHING_RULE,
    MINIMUM_IOU,
    Overlaps,
    find_overlaps,
    match_lesions,
)
from focalis.lesions.measures import (
    MEASURING_RULE,
    Lesion,
    Line,
    axial_axis,
    disagreement,
    measure_components,
    measure_lesions,
)
from focalis.lesions.operating_point import OperatingPoint, decide, promised_of, report_lesions
from focalis.lesions.probability import temper
from focalis.lesions.second_look import features, fit_second_look, lesion_chance
from focalis.lesions.table import COLUMNS, LesionTable, as_csv, lesion_row

__all__ = [
    "COLUMNS",
    "CONNECTIVITY",
    "MATCHING_RULE",
    "MEASURING_RULE",
    "MINIMUM_IOU",
    "Candidates",
    "LabelLesions",
    "Lesion",
    "LesionTable",
    "Line",
    "OperatingPoint",
    "Overlaps",
    "as_csv",
    "axial_axis",
    "decide",
    "disagreement",
    "features",
    "find_candidates",
    "find_overlaps",
    "fit_second_look",
    "highest",
    "label_components",
    "lesion_chance",
    "lesion_row",
    "lesions_by_label",
    "match_lesions",
    "measure_components",
    "measure_lesions",
    "promised_of",
    "report_lesions",
    "temper",
    "voxels_of",
]
