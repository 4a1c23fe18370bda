"""The check of a data set before it is used: what stops training, and what a person should look at."""

from focalis.quality.facts import CaseFacts, LabelFacts, LabelMapFacts
from focalis.quality.finding import (
    FEW_VOXELS,
    GREATEST_SHARE,
    KINDS,
    LEAST_SHARE,
    Finding,
)
from focalis.quality.problems import FACTS_VERSION, CheckResult, Problem, check_dataset
from focalis.quality.sizes import share_in_words, voxels_at
from focalis.quality.survey import Measured, PlannedSpacing, Survey, measure, survey

__all__ = [
    "FACTS_VERSION",
    "FEW_VOXELS",
    "GREATEST_SHARE",
    "KINDS",
    "LEAST_SHARE",
    "CaseFacts",
    "CheckResult",
    "Finding",
    "LabelFacts",
    "LabelMapFacts",
    "Measured",
    "PlannedSpacing",
    "Problem",
    "Survey",
    "check_dataset",
    "measure",
    "share_in_words",
    "survey",
    "voxels_at",
]
