"""From the fingerprint of a data set to a plan, and what the plan does to an image."""

from focalis.planning.fingerprint import Fingerprint, fingerprint
from focalis.planning.make import (
    STAGES_OF_SHAPES,
    make_plan,
    target_spacing,
    usual_network,
    usual_start,
    within_memory,
)
from focalis.planning.modality import other_modalities
from focalis.planning.plan import (
    LEAST_CROP_MM,
    MOST_CROP_MM,
    SCRATCH,
    SHAPES,
    SHAPES_OF,
    AugmentationSettings,
    Freeze,
    LossSettings,
    NetworkSettings,
    Normalisation,
    Plan,
    Readers,
    read_plan,
    write_plan,
)
from focalis.planning.preparation import prepare_image, prepare_label
from focalis.planning.scope import Description, Scope, describe, join_scopes, learn_scope, outside, positions

__all__ = [
    "LEAST_CROP_MM",
    "MOST_CROP_MM",
    "SCRATCH",
    "SHAPES",
    "SHAPES_OF",
    "STAGES_OF_SHAPES",
    "AugmentationSettings",
    "Description",
    "Fingerprint",
    "Freeze",
    "LossSettings",
    "NetworkSettings",
    "Normalisation",
    "Plan",
    "Readers",
    "Scope",
    "describe",
    "fingerprint",
    "join_scopes",
    "learn_scope",
    "make_plan",
    "other_modalities",
    "outside",
    "positions",
    "prepare_image",
    "prepare_label",
    "read_plan",
    "target_spacing",
    "usual_network",
    "usual_start",
    "within_memory",
    "write_plan",
]
