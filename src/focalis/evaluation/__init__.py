"""How good a segmentation is: by voxel, by surface, by lesion, with intervals. Plain arrays, no torch."""

from focalis.evaluation.cases import EMPTY_RULE, Score, evaluate_case
from focalis.evaluation.comparison import FIGURES, POOLING_RULE, Figure, figures_of, paired_differences
from focalis.evaluation.intervals import (
    bootstrap_interval,
    paired_difference_interval,
    ratio_difference_interval,
    ratio_interval,
)
from focalis.evaluation.lesionwise import LesionScores, lesion_scores
from focalis.evaluation.operating_point import choose_threshold
from focalis.evaluation.record import Evaluation
from focalis.evaluation.summary import (
    METRICS,
    LabelSummary,
    LesionSummary,
    Pooled,
    Statistic,
    Summary,
    representative_cases,
    summarise,
)
from focalis.evaluation.surface import SurfaceScores, surface_points_mm, surface_scores
from focalis.evaluation.voxel import VoxelScores, voxel_scores

__all__ = [
    "EMPTY_RULE",
    "FIGURES",
    "METRICS",
    "POOLING_RULE",
    "Evaluation",
    "Figure",
    "LabelSummary",
    "LesionScores",
    "LesionSummary",
    "Pooled",
    "Score",
    "Statistic",
    "Summary",
    "SurfaceScores",
    "VoxelScores",
    "bootstrap_interval",
    "choose_threshold",
    "evaluate_case",
    "figures_of",
    "lesion_scores",
    "paired_difference_interval",
    "paired_differences",
    "ratio_difference_interval",
    "ratio_interval",
    "representative_cases",
    "summarise",
    "surface_points_mm",
    "surface_scores",
    "voxel_scores",
]
