"""Cases, layouts, splits, and generated data."""

from focalis.dataset.case import GREATEST_LABEL, IGNORED, MOST_LABELS, Case, Dataset
from focalis.dataset.consensus import majority, staple
from focalis.dataset.layout import open_dataset
from focalis.dataset.layouts import (
    UNNAMED_CHANNEL,
    Labels,
    group_channels,
    is_reserved,
    read_beside,
    read_patients,
    read_table,
)
from focalis.dataset.phantoms import PhantomSettings, make_phantom, write_phantoms
from focalis.dataset.readers import ReaderWarning, find_readers, readers_folder, with_readers
from focalis.dataset.splits import (
    Split,
    empty_side,
    find_splits,
    inner_split,
    lost_labels,
    make_splits,
    read_splits,
    write_splits,
)

__all__ = [
    "GREATEST_LABEL",
    "IGNORED",
    "MOST_LABELS",
    "UNNAMED_CHANNEL",
    "Case",
    "Dataset",
    "Labels",
    "PhantomSettings",
    "ReaderWarning",
    "Split",
    "empty_side",
    "find_readers",
    "find_splits",
    "group_channels",
    "inner_split",
    "is_reserved",
    "lost_labels",
    "majority",
    "make_phantom",
    "make_splits",
    "open_dataset",
    "read_beside",
    "read_patients",
    "read_splits",
    "read_table",
    "readers_folder",
    "staple",
    "with_readers",
    "write_phantoms",
    "write_splits",
]
