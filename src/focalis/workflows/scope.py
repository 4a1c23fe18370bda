"""Whether images lie outside of what a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from focalis.errors import ModelError
from focalis.model import Model
from focalis.planning import describe, other_modalities, outside, positions
from focalis.prediction import Place, check_volumes, cut, require_crop, surroundings
from focalis.volume import Absent, Volume, odd_voxels, padding_value


def check_scope(
    model: Model,
    volumes: Sequence[Volume],
    modalities: Sequence[str] = (),
    *,
    strict: bool = False,
    places: Sequence[Place] = (),
) -> tuple[str, ...]:
    """In what a case lies outside of a model's scope, a phrase each; empty inside.

    Another modality than the plan's comes first, then voxels of another order of magnitude and fill values for no
    data. All else is compared only where the model knows its training images.

    Args:
        volumes: one per channel, in the order of the plan's channels, on one grid.
        modalities: one per channel, as DICOM names them; none where the images do not tell.
        strict: refuse what lies outside.
        places: where a person points; then only their surroundings are compared.

    Raises:
        ModelError: the model cannot take these volumes at all (see `check_volumes` and `require_crop`); or, if
            `strict`, they lie outside.
    """
    if not places:
        check_volumes(volumes, model.plan)
        require_crop(model, volumes[0].grid)
        return _compare(model, volumes, modalities, strict)
    boxes = [surroundings(model, volumes[0].grid, place) for place in places]
    found: dict[str, None] = {}
    for crop in (cut(volumes, box) for box in boxes if box is not None):
        with suppress(ModelError):  # the caller reports what cannot be segmented
            check_volumes(crop, model.plan)
            found |= dict.fromkeys(_compare(model, crop, modalities, False))
    return _told(tuple(found), strict)


def scope_positions(model: Model, volumes: Sequence[Volume]) -> dict[str, float]:
    """Where the figures of a case lie in the usual ranges of a model's scope, see `focalis.planning.positions`.

    Empty if the model does not know its training images.
    """
    if model.scope is None:
        return {}
    return positions(model.scope, describe(volumes, model.plan.normalisation))


def _compare(
    model: Model, volumes: Sequence[Volume], modalities: Sequence[str], strict: bool
) -> tuple[str, ...]:
    found = other_modalities(model.plan, modalities)
    if odd := odd_voxels(volumes[0].grid.spacing_xyz_mm, model.plan.spacing_zyx_mm):
        found += (odd,)
    for name, volume in zip(model.plan.channels, volumes, strict=True):
        if not isinstance(volume, Absent) and (padding := padding_value(volume.array)) is not None:
            found += (f"the value {padding:g} in {name} most likely means no data",)
    if model.scope is not None:
        found += outside(model.scope, describe(volumes, model.plan.normalisation), model.plan.channels)
    return _told(found, strict)


def _told(found: tuple[str, ...], strict: bool) -> tuple[str, ...]:
    """The phrases; if `strict`, an error if there are any."""
    if found and strict:
        raise ModelError(f"{outside_line(found)}; leave --strict out to predict it nevertheless")
    return found


def outside_line(found: Sequence[str]) -> str:
    """The phrases as one line."""
    return f"lies outside of what the model was trained on: {'; '.join(found)}"
