"""Training: prepared cases, patches, one visible loop, checkpoints."""

from focalis.training.allocator import keep_freed_memory
from focalis.training.calibration import calibrate
from focalis.training.loop import (
    METRICS,
    Interrupted,
    NothingLearnedWarning,
    Progress,
    read_metrics,
    seconds_per_step,
    steps_in,
    train,
)
from focalis.training.precision import trusted
from focalis.training.prepared import KNOWN, TrainingCase, prepare_cases
from focalis.training.refinement import fit_refinement
from focalis.training.validation import operating_point

__all__ = [
    "KNOWN",
    "METRICS",
    "Interrupted",
    "NothingLearnedWarning",
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
    "train",
    "trusted",
]
