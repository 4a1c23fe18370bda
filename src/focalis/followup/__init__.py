"""The same lesions on several dates: registration, matching, change with its error."""

from focalis.followup.change import CHANGE_RULE, Change, LesionDay, Size, measure
from focalis.followup.error import ERROR_RULE, MeasurementError, estimate_error, scan_noise
from focalis.followup.pairing import FOLLOWING_RULE
from focalis.followup.recist import (
    RECIST_RULE,
    Targets,
    choose_targets,
    is_measurable,
    require_targets,
    sum_targets,
)
from focalis.followup.registration import DOUBTFUL_SIMILARITY, REGISTRATION_RULE, register
from focalis.followup.study import Piece, Study, make_study
from focalis.followup.timeline import THERE, Placement, Sighting, Track, carry, place, track
from focalis.followup.transform import Transform

__all__ = [
    "CHANGE_RULE",
    "DOUBTFUL_SIMILARITY",
    "ERROR_RULE",
    "FOLLOWING_RULE",
    "RECIST_RULE",
    "REGISTRATION_RULE",
    "THERE",
    "Change",
    "LesionDay",
    "MeasurementError",
    "Piece",
    "Placement",
    "Sighting",
    "Size",
    "Study",
    "Targets",
    "Track",
    "Transform",
    "carry",
    "choose_targets",
    "estimate_error",
    "is_measurable",
    "make_study",
    "measure",
    "place",
    "register",
    "require_targets",
    "scan_noise",
    "sum_targets",
    "track",
]
