"""A small data set in memory and a plan for it."""

import numpy as np
import pytest
from scipy import ndimage
from small_plan import small_plan

from focalis.lesions import label_components
from focalis.losses import distance_to_foreground, nearest_lesion
from focalis.planning import NetworkSettings, Plan
from focalis.training.prepared import TrainingCase


def ball_case(
    name: str, shape=(24, 24, 24), centre=(12, 12, 12), radius=4.0, seed=0, numbered=False
) -> TrainingCase:
    """A bright ball in noise, on a grid of 1 mm."""
    rng = np.random.default_rng(seed)
    offsets = np.moveaxis(np.indices(shape), 0, -1) - np.asarray(centre)
    label = (np.sqrt((offsets**2).sum(-1)) <= radius).astype(np.uint8)
    image = rng.normal(size=shape) * 0.5 + 2 * ndimage.gaussian_filter(label.astype(float), 0.7)
    components, count = label_components(label > 0)
    return TrainingCase(
        name,
        image[None].astype(np.float32),
        label,
        distance_to_foreground(label, (1, 1, 1)).astype(np.float16),
        tuple(np.argwhere(components == i).astype(np.int32) for i in range(1, count + 1)),
        nearest=nearest_lesion(components, count, (1, 1, 1)) if numbered else None,
    )


@pytest.fixture
def plan() -> Plan:
    return small_plan(
        labels={1: "ball"},
        patch_zyx=(16, 16, 16),
        network=NetworkSettings(strides_zyx=((2, 2, 2), (2, 2, 2))),
    )


@pytest.fixture
def cases() -> list[TrainingCase]:
    return [ball_case(f"case{i}", seed=i, radius=3 + i % 3) for i in range(4)]


@pytest.fixture
def numbered_cases() -> list[TrainingCase]:
    """As a loss that counts lesions needs them; the last but one has no lesion."""
    return [ball_case(f"case{i}", seed=i, radius=(3, 4, -1, 5)[i], numbered=True) for i in range(4)]


@pytest.fixture
def empty_cases() -> list[TrainingCase]:
    return [ball_case(f"empty{i}", seed=i, radius=-1) for i in range(4)]
