"""Reports: self-contained HTML pages with their figures. The only package that draws."""

from focalis.report.agreement_page import agreement_figure, write_agreement_report
from focalis.report.comparison_page import write_comparison_report
from focalis.report.contours_figure import contours_figure
from focalis.report.curves import curves_figure
from focalis.report.evaluation_page import write_evaluation_report
from focalis.report.figure import DARK, LIGHT
from focalis.report.fit_page import write_fit_report
from focalis.report.follow_page import write_follow_report
from focalis.report.lesion_figures import froc_figure, operating_figure, reliability_figure, risk_figure
from focalis.report.overlay import overlay_figure
from focalis.report.plane import Point, plane_figure
from focalis.report.quality_page import write_quality_report
from focalis.report.spread import spread_figure
from focalis.report.strip import CasePicture, case_picture, strip
from focalis.report.summary_tables import caption

__all__ = [
    "DARK",
    "LIGHT",
    "CasePicture",
    "Point",
    "agreement_figure",
    "caption",
    "case_picture",
    "contours_figure",
    "curves_figure",
    "froc_figure",
    "operating_figure",
    "overlay_figure",
    "plane_figure",
    "reliability_figure",
    "risk_figure",
    "spread_figure",
    "strip",
    "write_agreement_report",
    "write_comparison_report",
    "write_evaluation_report",
    "write_fit_report",
    "write_follow_report",
    "write_quality_report",
]
