"""Augmentations: random changes of a training patch's intensities."""

from focalis.augmentations.augmentation import Augmentation
from focalis.augmentations.catalogue import AUGMENTATIONS, build_augmentation

__all__ = ["AUGMENTATIONS", "Augmentation", "build_augmentation"]
