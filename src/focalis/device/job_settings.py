"""How the device segments, whatever asked for it: a series, a click or a viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from focalis.prediction import Settings

_BUDGET_SHARE = 2 / 3


def settings_within(memory_gb: float) -> Settings:
    """The settings of a child that may take so much memory.

    They take no more of it than `focalis predict` does, so that both come to the same voxels by `--runtime torch`.
    """
    from focalis.prediction import DEFAULT_MEMORY_GB, Settings

    return Settings(runtime="torch", memory_gb=min(DEFAULT_MEMORY_GB, _BUDGET_SHARE * memory_gb))
