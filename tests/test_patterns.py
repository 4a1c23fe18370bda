"""Names that mean the same."""

import pytest

from focalis.patterns import fits, without_spelling


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("gtv [1]*", "GTV  [1] boost", True),
        ("gtv [1]*", "GTV 1", False),
        ("a{2}", "aa", False),
        ("a\\b", "A\\B", True),
        ("!a", "b", False),
        ("?", "", False),
        ("* ", " anything", True),
    ],
)
def test_star_and_question_mark_alone_are_special(pattern: str, text: str, expected: bool) -> None:
    assert fits(pattern, text) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("P01", " p1", True),
        ("0", "00", True),
        ("10", "1", False),
        ("1.0", "1", True),
        ("1.2.0", "1.2", False),
        ("sub-007", "SUB 7", True),
        ("Pat_12b", "pat12-B", True),
        ("1-12", "11-2", False),
        ("1_1", "11", False),
        ("\uff30\uff11", "P1", True),
    ],
)
def test_identifiers_may_differ_in_spelling_alone(one: str, other: str, expected: bool) -> None:
    assert (without_spelling(one) == without_spelling(other)) == expected
