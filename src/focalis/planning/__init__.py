"""From the fingerprint of a data set to a plan, and what the plan does to an image."""

from focalis.planning.fingerprint import Fingerprint, fingerprint
from focalis.planning.make import make_plan, target_spacing, within_memory
from focalis.planning.plan import (
    LossSettings,
    NetworkSettings,
    Normalisation,
    Plan,
    TrainingSettings,
    read_plan,
    write_plan,
)
from focalis.planning.preparation import Prepared, prepare_image, prepare_label

__all__ = [
    "Fingerprint",
    "LossSettings",
    "NetworkSettings",
    "Normalisation",
    "Plan",
    "Prepared",
    "TrainingSettings",
    "fingerprint",
    "make_plan",
    "prepare_image",
    "prepare_label",
    "read_plan",
    "target_spacing",
    "within_memory",
    "write_plan",
]
