"""An image with its grid: read, write, orient, resample."""

from focalis.volume.channels import onto_first_grid, read_channels, read_entries
from focalis.volume.content import PROFILE, content_digest, content_profile, profile_similarity
from focalis.volume.files import (
    IMAGE_SUFFIXES,
    NIFTI_HEADER_BYTES,
    data_files,
    from_sitk,
    image_stem,
    is_segmentation,
    placement_lacks,
    read_segments,
    read_volume,
    read_volumes,
    to_sitk,
    write_volume,
)
from focalis.volume.grid import Grid, odd_voxels
from focalis.volume.in_memory import ORIENTATION, Axes, knows_its_grid, volumes_in_memory
from focalis.volume.orient import canonical_axes, canonical_grid, to_canonical
from focalis.volume.outline import Outline, read_outlines
from focalis.volume.repair import GridWarning
from focalis.volume.resample import grid_with_spacing, resample_image, resample_label, resample_probabilities
from focalis.volume.segments import NamedSegment, itksnap_labels
from focalis.volume.values import padding_value, percentiles_of, why_unusable
from focalis.volume.volume import Absent, Volume, with_absent

__all__ = [
    "IMAGE_SUFFIXES",
    "NIFTI_HEADER_BYTES",
    "ORIENTATION",
    "PROFILE",
    "Absent",
    "Axes",
    "Grid",
    "GridWarning",
    "NamedSegment",
    "Outline",
    "Volume",
    "canonical_axes",
    "canonical_grid",
    "content_digest",
    "content_profile",
    "data_files",
    "from_sitk",
    "grid_with_spacing",
    "image_stem",
    "is_segmentation",
    "itksnap_labels",
    "knows_its_grid",
    "odd_voxels",
    "onto_first_grid",
    "padding_value",
    "percentiles_of",
    "placement_lacks",
    "profile_similarity",
    "read_channels",
    "read_entries",
    "read_outlines",
    "read_segments",
    "read_volume",
    "read_volumes",
    "resample_image",
    "resample_label",
    "resample_probabilities",
    "to_canonical",
    "to_sitk",
    "volumes_in_memory",
    "why_unusable",
    "with_absent",
    "write_volume",
]
