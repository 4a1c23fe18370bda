"""Segment an image in memory: python examples/in_memory.py MODEL IMAGE.nii.gz MASK.nii.gz

MODEL is a model file, a run's folder, or the name of a model that comes with Focalis, such as lidc-nodule.
"""

import sys

import nibabel as nib

import focalis

model_path, image_path, mask_path = sys.argv[1:]
image = nib.load(image_path)
found = focalis.load(model_path).segment(image)  # or an array, with spacing_mm=

for lesion in found.lesions:
    print(f"{lesion.name} {lesion.number}: {lesion.volume_mm3:.0f} mm3, confidence {lesion.confidence:.2f}")
nib.save(nib.Nifti1Image(found.mask, image.affine), mask_path)
