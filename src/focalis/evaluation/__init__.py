"""How good a segmentation is: by voxel, by surface, by lesion, with intervals. Plain arrays, no torch."""

from focalis.evaluation.calibration import (
    CALIBRATION_RULE,
    Calibration,
    Reliability,
    VoxelCounts,
    count_voxels,
    fit_temperature,
    lesion_reliability,
    limit_line,
    voxel_reliability,
)
from focalis.evaluation.cases import EMPTY_RULE, Score, evaluate_case
from focalis.evaluation.collapse import Collapse, find_collapse, nothing_to_find, partly_judged
from focalis.evaluation.detection import CaseLesions, Detection
from focalis.evaluation.evaluation import Evaluation
from focalis.evaluation.froc import FROC_RULE, Froc, FrocRate, bands_csv, froc, froc_csv
from focalis.evaluation.gain_forecast import forecast
from focalis.evaluation.intervals import (
    Pooled,
    bootstrap_interval,
    paired_difference_interval,
    ratio_difference_interval,
    ratio_interval,
)
from focalis.evaluation.judged import JUDGED_COLUMNS, JudgedLesion, judge_lesions
from focalis.evaluation.lesionwise import lesion_scores
from focalis.evaluation.missing import by_channels, channels_line
from focalis.evaluation.paired import POOLING_RULE, Figure, figures_of, paired_differences
from focalis.evaluation.point_choice import Aim, choose, cut
from focalis.evaluation.promise import Promise, keep_promise
from focalis.evaluation.regions import views
from focalis.evaluation.risk import RISK_RULE, RiskCoverage, risk_coverage
from focalis.evaluation.summary import (
    METRICS,
    LabelSummary,
    Summary,
    case_dice,
    representative_cases,
    summarise,
)
from focalis.evaluation.surface import surface_points_mm, surface_scores
from focalis.evaluation.voxel import voxel_scores

__all__ = [
    "CALIBRATION_RULE",
    "EMPTY_RULE",
    "FROC_RULE",
    "JUDGED_COLUMNS",
    "METRICS",
    "POOLING_RULE",
    "RISK_RULE",
    "Aim",
    "Calibration",
    "CaseLesions",
    "Collapse",
    "Detection",
    "Evaluation",
    "Figure",
    "Froc",
    "FrocRate",
    "JudgedLesion",
    "LabelSummary",
    "Pooled",
    "Promise",
    "Reliability",
    "RiskCoverage",
    "Score",
    "Summary",
    "VoxelCounts",
    "bands_csv",
    "bootstrap_interval",
    "by_channels",
    "case_dice",
    "channels_line",
    "choose",
    "count_voxels",
    "cut",
    "evaluate_case",
    "figures_of",
    "find_collapse",
    "fit_temperature",
    "forecast",
    "froc",
    "froc_csv",
    "judge_lesions",
    "keep_promise",
    "lesion_reliability",
    "lesion_scores",
    "limit_line",
    "nothing_to_find",
    "paired_difference_interval",
    "paired_differences",
    "partly_judged",
    "ratio_difference_interval",
    "ratio_interval",
    "representative_cases",
    "risk_coverage",
    "summarise",
    "surface_points_mm",
    "surface_scores",
    "views",
    "voxel_reliability",
    "voxel_scores",
]
