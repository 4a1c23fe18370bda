"""Connected components of a three-dimensional mask."""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.errors import UsageError

_RANKS = {6: 1, 18: 2, 26: 3}


def label_components(mask: NDArray[np.bool_], connectivity: int = 26) -> tuple[NDArray[np.int32], int]:
    """Number the connected components of a mask.

    Args:
        mask: foreground, shape (z, y, x).
        connectivity: which neighbours belong together: 6 (faces), 18 (and edges) or 26 (and corners).

    Returns:
        An int32 array of the mask's shape with 0 outside and 1 to n inside the components, and n.

    Raises:
        UsageError: for another connectivity.
    """
    if connectivity not in _RANKS:
        raise UsageError(f"connectivity is {connectivity}; choose 6, 18 or 26")
    labelled = np.empty(mask.shape, dtype=np.int32)
    structure = scipy.ndimage.generate_binary_structure(3, _RANKS[connectivity])
    return labelled, int(scipy.ndimage.label(mask, structure, output=labelled))
