"""The check of a data set before it is used."""

from focalis.quality.check import CheckResult, Problem, check_dataset

__all__ = ["CheckResult", "Problem", "check_dataset"]
