"""What a training is asked for is checked when it is made."""

import math
from pathlib import Path

import pytest

from focalis.errors import UsageError
from focalis.settings import Compute, Folds, Length


def test_without_a_length_a_training_takes_30_minutes():
    assert Length() == Length(minutes=30)
    assert Length(steps=5).minutes is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Length(2.0, 100), "minutes or steps"),
        (lambda: Length(steps=0), "steps is 0; give 1 or more"),
        (lambda: Length(0.0), "minutes is 0; give more than 0"),
        (lambda: Length(math.nan), "minutes is nan"),
        (lambda: Length(math.inf), "minutes is inf"),
        (lambda: Folds(0, 5), "fold or folds"),
        (lambda: Folds(fold=-1), "fold is -1; give 0 or more"),
        (lambda: Folds(splits=Path("splits.json")), "give fold or folds too"),
        (lambda: Folds(folds=0), "folds is 0; give 1 or more"),
        (lambda: Compute(threads=0), "threads is 0"),
        (lambda: Compute(memory_gb=0.0), "memory budget of 0.0 GB"),
        (lambda: Compute(memory_gb=math.nan), "memory budget of nan GB"),
        (lambda: Compute(memory_gb=math.inf), "memory budget of inf GB"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()
