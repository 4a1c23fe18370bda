"""Settings refuse what they cannot mean, in one plain line."""

import numpy as np
import pytest

from focalis.errors import UsageError
from focalis.prediction import Settings


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"threshold": "0.5"}, "threshold is '0.5'; give a number"),
        ({"threshold": True}, "threshold is True; give a number"),
        ({"minimum_mm3": [3]}, r"minimum_mm3 is \[3\]; give a number"),
        ({"minimum_confidence": "high"}, "minimum_confidence is 'high'; give a number"),
        ({"memory_gb": None}, "memory_gb is None; give a number"),
        ({"threads": 1.5}, "threads is 1.5; give a whole number"),
        ({"threads": True}, "threads is True; give a whole number"),
        ({"mirror": "no"}, "mirror is 'no'; give True or False"),
        ({"refine": 1}, "refine is 1; give True or False"),
        ({"device": 0}, "device is 0; give a text"),
        ({"tresholt": 0.5}, "there is no setting 'tresholt'; .*did you mean 'threshold'"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_its_name(wrong, said):
    with pytest.raises(UsageError, match=said):
        Settings.given(wrong)


def test_what_is_no_settings_is_refused():
    with pytest.raises(UsageError, match=r"give focalis.Settings\(...\)"):
        Settings.given(0.5)


def test_numpys_numbers_become_pythons():
    given = Settings(threshold=np.float32(0.5), threads=np.int64(2), mirror=np.True_)
    assert given == Settings(threshold=0.5, threads=2, mirror=True)
    assert [type(value) for value in (given.threshold, given.threads, given.mirror)] == [float, int, bool]


def test_a_mapping_stands_for_settings():
    assert Settings.given({"threshold": 0.5}) == Settings(threshold=0.5)
    assert Settings.given(None) == Settings()
