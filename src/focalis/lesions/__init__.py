"""Lesions as connected components of a mask: find them, measure them, match two sets of them."""

from focalis.lesions.components import label_components
from focalis.lesions.matching import MATCHING_RULE, MINIMUM_IOU, Matching, match_lesions
from focalis.lesions.measures import LesionMeasures, measure_lesions

__all__ = [
    "MATCHING_RULE",
    "MINIMUM_IOU",
    "LesionMeasures",
    "Matching",
    "label_components",
    "match_lesions",
    "measure_lesions",
]
