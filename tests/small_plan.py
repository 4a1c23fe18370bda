"""A plan of one channel and one label that any test may change."""

from focalis.planning import Normalisation, Plan


def small_plan(**changes):
    """Voxels of 1 mm, patches of 8^3, batches of 2."""
    settings = {
        "channels": ("image",),
        "labels": {1: "lesion"},
        "spacing_zyx_mm": (1.0, 1.0, 1.0),
        "normalisation": (Normalisation(),),
        "patch_zyx": (8, 8, 8),
        "batch": 2,
    }
    return Plan(**settings | changes)
