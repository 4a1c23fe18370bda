"""One run of SimpleITK's registration, from a start to an affine map."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from focalis.followup.transform import Transform

_SEED = 20
_BINS = 32


def optimise(
    fixed: sitk.Image,
    moving: sitk.Image,
    start: Transform,
    centre: NDArray[np.float64],
    *,
    where: sitk.Image,
    where_moving: sitk.Image | None = None,
    levels: tuple[int, ...],
    affine: bool = False,
    correlation: bool = False,
    samples: int = 30_000,
) -> Transform | None:
    """Move one image onto another; None if they have too little in common.

    Args:
        fixed, moving: float32 images.
        start: from places of `fixed` to places of `moving`; a rigid search leaves its stretch out.
        centre: the place to turn about.
        where: mask on the grid of `fixed`: which voxels count.
        where_moving: likewise of `moving`.
        levels: by which factors both images are shrunk, from coarse to fine.
        affine: whether it may also stretch and shear.
        correlation: compare by correlation, not by mutual information: for small pieces of one modality.
        samples: how many voxels are compared at each level.
    """
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfWorkUnits(1)  # several would add up in the order in which they end
    if correlation:
        method.SetMetricAsCorrelation()
    else:
        method.SetMetricAsMattesMutualInformation(_BINS)
    voxels = int(np.prod(fixed.GetSize()))
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel(
        [min(1.0, samples * level**3 / voxels) for level in levels], _SEED
    )
    method.SetMetricFixedMask(where)
    if where_moving is not None:
        method.SetMetricMovingMask(where_moving)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel(levels)
    method.SetSmoothingSigmasPerLevel([level / 2 if level > 1 else 0.0 for level in levels])
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0,
        minStep=1e-3,
        numberOfIterations=100,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-5,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(_initial(start, centre, affine), inPlace=False)
    try:
        return Transform.from_sitk(method.Execute(fixed, moving))
    except RuntimeError:  # the images no longer overlap: ITK says so in many ways
        return None


def _initial(start: Transform, centre: NDArray[np.float64], affine: bool) -> sitk.Transform:
    moved: Any = sitk.AffineTransform(3) if affine else sitk.Euler3DTransform()
    moved.SetCenter(centre.tolist())
    matrix = start.matrix
    if not affine:
        left, _, right = np.linalg.svd(matrix)
        matrix = left @ right
    moved.SetMatrix(matrix.ravel().tolist())
    moved.SetTranslation((start.apply(centre) - centre).tolist())
    start_map: sitk.Transform = moved
    return start_map
