"""Cases, layouts, splits, and generated data."""

from focalis.dataset.case import Case, Dataset
from focalis.dataset.layout import group_channels, open_dataset
from focalis.dataset.phantoms import Phantom, PhantomSettings, make_phantom, write_phantoms
from focalis.dataset.splits import Split, inner_split, make_splits, read_splits, write_splits

__all__ = [
    "Case",
    "Dataset",
    "Phantom",
    "PhantomSettings",
    "Split",
    "group_channels",
    "inner_split",
    "make_phantom",
    "make_splits",
    "open_dataset",
    "read_splits",
    "write_phantoms",
    "write_splits",
]
