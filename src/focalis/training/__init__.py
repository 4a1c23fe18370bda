"""Training: prepared cases, patches, one visible loop, checkpoints."""

from focalis.training.eight_bit_calibration import calibrate
from focalis.training.loop import (
    LEAST_GAIN,
    METRICS,
    Interrupted,
    NothingLearnedWarning,
    Progress,
    read_metrics,
    seconds_per_step,
    steps_in,
    stood_still,
    train,
    untrained_look,
    untrained_point,
)
from focalis.training.prepared import KNOWN, TrainingCase, prepare_cases
from focalis.training.prepared_objects import PreparedObjects
from focalis.training.processor import keep_freed_memory, trusted_to_train
from focalis.training.refinement import fit_refinement
from focalis.training.validation import operating_point

__all__ = [
    "KNOWN",
    "LEAST_GAIN",
    "METRICS",
    "Interrupted",
    "NothingLearnedWarning",
    "PreparedObjects",
    "Progress",
    "TrainingCase",
    "calibrate",
    "fit_refinement",
    "keep_freed_memory",
    "operating_point",
    "prepare_cases",
    "read_metrics",
    "seconds_per_step",
    "steps_in",
    "stood_still",
    "train",
    "trusted_to_train",
    "untrained_look",
    "untrained_point",
]
