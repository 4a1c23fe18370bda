"""Losses by name, called alike whether they count lesions or not."""

from functools import partial

import numpy as np
import pytest
import torch

from focalis.lesions import label_components
from focalis.losses import build_loss, loss_spec, nearest_lesion
from focalis.losses.target import foreground, judged


def numbered(target):
    """The number of the nearest lesion of each patch of a target, on a grid of 1 mm."""
    mask = (foreground(target) & judged(target)).numpy()
    maps = [nearest_lesion(*label_components(patch), (1, 1, 1)) for patch in mask]
    return torch.from_numpy(np.stack(maps).astype(np.int64))


def _called(name, loss, logits, target, distance):
    given = (numbered(target),) if loss_spec(name).lesions else ()
    return loss(logits, target, distance, *given)


def _named(name, parameters=None):
    return partial(_called, name, build_loss(name, parameters))


@pytest.fixture
def named():
    """A function of a loss's name and parameters that returns it as a function of logits, target and distance."""
    return _named


@pytest.fixture
def nearest():
    """A function of a target, the number of the nearest lesion of each voxel."""
    return numbered
