"""One colour per label, the same in every format that names colours."""

from __future__ import annotations

LABEL_COLOURS = (
    (220, 50, 47),
    (38, 139, 210),
    (133, 153, 0),
    (211, 54, 130),
    (42, 161, 152),
    (203, 75, 22),
    (108, 113, 196),
    (181, 137, 0),
    (0, 158, 96),
    (160, 82, 160),
    (0, 110, 150),
    (150, 60, 60),
    (90, 140, 40),
    (200, 110, 150),
    (70, 90, 200),
    (140, 105, 60),
)
"""Red, green and blue, 0 to 255; dark enough to be told from bright tissue."""


def label_colour(place: int) -> tuple[int, int, int]:
    """The colour of a label by its place among the label values in ascending order, from 0; they recur after 16."""
    return LABEL_COLOURS[place % len(LABEL_COLOURS)]
