"""MONAI's transforms in front of a model: python examples/monai_transforms.py MODEL IMAGE.nii.gz MASK.nii.gz

Needs MONAI (pip install monai). TorchIO's work alike: hand over the tensor of the image and its spacing.
"""

import sys

import nibabel as nib
import numpy as np
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, MedianSmooth, Orientation

import focalis

model_path, image_path, mask_path = sys.argv[1:]
prepare = Compose(
    [
        LoadImage(),
        EnsureChannelFirst(),
        Orientation("RAS", labels=None),
        MedianSmooth(radius=1),
    ]
)
image = prepare(image_path)  # (channel, x, y, z) in RAS
affine = np.asarray(image.affine)

spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
found = focalis.load(model_path).segment(image[0].numpy(), spacing_mm=spacing_mm, orientation="RAS")

print(f"{len(found.lesions)} lesions")
nib.save(nib.Nifti1Image(found.mask, affine), mask_path)
