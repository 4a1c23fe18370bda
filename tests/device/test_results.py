"""What results say of themselves when they are doubtful."""

import numpy as np
import pytest
from device_work import GRID, block
from structured_reports import read_report

from focalis.device.results import make_results
from focalis.dicom import Origin, read_series
from focalis.identity import ModelIdentity
from focalis.workflows.cautions import cautions_of


@pytest.mark.parametrize(
    ("partial", "outside", "absence"),
    [("", (), True), ("9 images announced, 6 came", (), False), ("", ("it is an MR series",), False)],
)
def test_a_report_says_that_there_is_no_lesion_only_where_nothing_is_doubtful(
    write_series, tmp_path, partial, outside, absence
):
    series = read_series(write_series(tmp_path / "scan", block(), GRID))
    made = make_results(
        np.zeros(GRID.shape_zyx, np.uint8),
        {1: "nodule"},
        series,
        tmp_path,
        Origin(ModelIdentity("nodules"), "1", cautions=cautions_of(partial=partial, outside=outside)),
        supersedes={},
    )
    report = read_report(tmp_path / next(each.file for each in made if each.kind == "sr"))
    assert (report.total, report.absence) == (0, absence)
    assert len(report.cautions) == bool(partial) + bool(outside)
