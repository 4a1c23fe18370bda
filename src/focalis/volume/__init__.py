"""An image with its grid: read, write, orient, resample."""

from focalis.volume.files import IMAGE_SUFFIXES, from_sitk, image_stem, read_volume, to_sitk, write_volume
from focalis.volume.grid import Grid
from focalis.volume.orient import to_canonical
from focalis.volume.resample import grid_with_spacing, resample_image, resample_label, resample_probabilities
from focalis.volume.volume import Volume

__all__ = [
    "IMAGE_SUFFIXES",
    "Grid",
    "Volume",
    "from_sitk",
    "grid_with_spacing",
    "image_stem",
    "read_volume",
    "resample_image",
    "resample_label",
    "resample_probabilities",
    "to_canonical",
    "to_sitk",
    "write_volume",
]
