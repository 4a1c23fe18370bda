"""The process that reads images for the page, as it is."""

import pytest

from focalis.device.config import Limits
from focalis.device.web.children import run_job
from focalis.errors import DataError


def test_a_job_answers_from_its_own_process(tmp_path, write_series, stored, grid):
    (path, *_) = write_series(tmp_path, stored, grid, PatientName="Müller^Jörg")

    (row,) = run_job("identify", {"files": [str(path)], "charset": "latin-1"}, Limits())

    assert (row["name"], row["patient_id"]) == ("Müller, Jörg", "P1")


def test_what_a_job_says_is_wrong_is_raised(tmp_path):
    with pytest.raises(DataError, match="no study has been reviewed"):
        run_job("export", {"studies": [], "out": str(tmp_path / "out")}, Limits())


def test_a_job_over_its_time_is_ended():
    with pytest.raises(DataError, match="took more than"):
        run_job("identify", {"files": [], "charset": "latin-1"}, Limits(segment_minutes=0.0001))


def test_a_job_over_its_memory_is_an_error_and_not_the_end(tmp_path):
    path = tmp_path / "big.dcm"
    with path.open("wb") as file:
        file.write(bytes(128) + b"DICM")
        file.truncate(700_000_000)

    with pytest.raises(DataError, match="memory"):
        run_job(
            "identify",
            {"files": [str(path)], "charset": "latin-1"},
            Limits(parse_memory_mb=256, segment_memory_gb=0.05),
        )
