"""The layouts in which data sets lie on disk; none of these functions reads an image."""

from focalis.dataset.layouts.description import Labels, is_reserved, read_beside
from focalis.dataset.layouts.folders import open_folders
from focalis.dataset.layouts.manifest import open_manifest
from focalis.dataset.layouts.names import UNNAMED_CHANNEL, entry, group_channels
from focalis.dataset.layouts.nnunet import open_nnunet
from focalis.dataset.layouts.tables import read_patients, read_table

__all__ = [
    "UNNAMED_CHANNEL",
    "Labels",
    "entry",
    "group_channels",
    "is_reserved",
    "open_folders",
    "open_manifest",
    "open_nnunet",
    "read_beside",
    "read_patients",
    "read_table",
]
