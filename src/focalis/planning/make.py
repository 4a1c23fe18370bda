"""From a fingerprint to a plan, each decision with its reason in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from focalis.errors import PlanError
from focalis.planning.fingerprint import Fingerprint
from focalis.planning.modality import modality_of
from focalis.planning.plan import (
    MOST_CROP_MM,
    SCRATCH,
    SHAPES,
    SHAPES_OF,
    NetworkSettings,
    Normalisation,
    Plan,
    TrainingSettings,
    Triple,
    Use,
    alike,
)
from focalis.planning.pose import Pose
from focalis.planning.sizes import with_sizes_taken
from focalis.planning.step_memory import training_bytes
from focalis.settings import first_fault

PATCH_SHARE = 0.85
STAGES_OF_SHAPES = 3
FEW_CASES = 40
"""Up to so many cases, whether held out or not, the small U-Net, from shapes, is the usual network."""
BATCH_VOXELS = 2 * 40**3
PATCH_VOXELS = BATCH_VOXELS // 2
"""Steps count for more than the size of a patch: on heads, in the same time, 1,000 steps with patches of 48^3 gave a
Dice 0.041 (0.029 to 0.055) above that of 500 steps with 64^3 (docs/evidence-tables.md, sizes of patches).

For a network that halves every axis at first. Where it leaves an axis as it is, its maps are larger, and the patch
has fewer voxels: a step of 6 x 104 x 104 took 2.9 times as long as one of 40 x 40 x 40, of 6 x 72 x 72 1.3 times."""
ANISOTROPY = 3.0
CT_FIRST_PERCENTILE = -300.0
AGREEMENT_KEPT = 0.9
"""From this share of the cases' agreement on, a flip or a turn is taken to change nothing."""
LESION_PATCHES, MOST_LESION_PATCHES = 0.67, 0.9
"""The share of patches that hold a lesion, over all cases, and the most within the cases that have one.

Where over a third of the cases are empty, the others still give two thirds of the patches (`focalis.training.batches`),
so that the share over all cases stays at 0.6."""
FREE_TURNS: Mapping[str, Any] = {"turn_share": 0.7, "turn_limit_deg": 180.0}
QUARTER_TURNS: Mapping[str, Any] = {"quarter_turns": True, "turn_share": 0.3, "turn_limit_deg": 45.0}
"""Quarter turns and a turn of up to 45 degrees about each axis reach every orientation."""
SIDES_ALIKE = 1.25
"""A patch whose sides differ by more does not fit, turned by a quarter, where it fits as it is."""


def make_plan(
    found: Fingerprint,
    channels: Sequence[str],
    labels: Mapping[int, str],
    network: str = "dense",
    memory_budget_gb: float = 8.0,
    ignore: int | None = None,
    regions: Mapping[str, tuple[int, ...]] | None = None,
) -> Plan:
    """Decide spacing, patch, batch, normalisation and strides from a data set's fingerprint.

    Args:
        found: the training cases' fingerprint.
        labels: label value to name, without the background.
        network: a name that `focalis.networks.network_spec` knows, `+crf` behind it or not.
        memory_budget_gb: what training may take.
        ignore: the label value of voxels that nobody has judged.
        regions: nested regions, name to label values.

    Raises:
        PlanError: what is asked for does not go together, or does not fit the memory.
    """
    from focalis.networks import network_spec, split_name  # here: reading a plan does not load torch
    from focalis.planning.parts import default_augmentation

    spec = network_spec(split_name(network)[0])
    reasons: dict[str, str] = {}
    spacing = target_spacing(found.spacings_zyx_mm, reasons)
    normalisation = tuple(_normalisation(found, i, name, reasons) for i, name in enumerate(channels))
    shape = np.median(np.multiply(found.shapes_zyx, found.spacings_zyx_mm), axis=0) / spacing
    halved = int(np.prod(_strides(spacing, (shape * PATCH_SHARE).tolist(), spec.stages)[0])) / 8
    most = round(PATCH_VOXELS * halved)
    wanted, capped = _wanted(shape, most, np.asarray(spacing) if halved < 1 else np.ones(3))
    strides = _strides(spacing, wanted.tolist(), spec.stages)
    if spec.any_depth:
        strides = tuple(stride for stride in strides if stride != (1, 1, 1)) or ((1, 1, 1),)
    patch = _patch(shape, wanted, most if capped else None, np.prod(strides, axis=0).tolist(), reasons)
    batch = max(2, round(BATCH_VOXELS * halved) // int(np.prod(patch)))
    reasons["batch"] = f"about {BATCH_VOXELS * halved:,.0f} voxels a step, at least 2 patches"
    cubes = alike(spacing) and max(patch) <= SIDES_ALIKE * min(patch)
    training = _training(found, _has_sides(labels), cubes, reasons)
    share = float(np.median(found.foreground_share))
    reasons["labels"] = (
        f"{len(found.lesion_volumes_mm3)} lesions (components of a label) in {len(found.shapes_zyx)} cases, median "
        f"{np.median(found.lesion_volumes_mm3):.3g} mm3; foreground fills {100 * share:.2g} % of the median case"
    )
    reasons["loss"] = (
        "soft Dice per patch plus cross entropy, the default, learns fastest in short trainings; --loss names another"
    )
    start, reasons["start"] = usual_start(network, len(strides), len(channels), nested=bool(regions))
    reasons["freeze"] = "which of the start's weights stay as they are: nothing, encoder or all-but-head"
    reasons["augmentation"] = "each changes a share of the channels; [] for none"
    reasons["readers"] = "the label maps; --readers names what to make of several readers' masks"
    use, reasons["use"] = _use(found)
    reasons["channels"] = "from the names of the images"
    reasons["ignore"] = "the value of voxels that nobody has judged, from dataset.json; null if there is none"
    reasons["network"] = (
        "each stage halves the axes along which voxels are not yet more than twice the finest, while 4 or more remain"
    )
    try:
        plan = Plan(
            channels=tuple(channels),
            labels=dict(labels),
            ignore=ignore,
            regions=dict(regions or {}),
            use=use,
            start=start,
            spacing_zyx_mm=spacing,
            normalisation=normalisation,
            patch_zyx=patch,
            batch=batch,
            network=NetworkSettings(name=network, strides_zyx=strides),
            training=training,
            augmentation=default_augmentation(),
            memory_budget_gb=memory_budget_gb,
            reasons=reasons,
        )
    except ValidationError as error:
        raise PlanError(": ".join(filter(None, first_fault(error)))) from error
    return within_memory(with_sizes_taken(plan, BATCH_VOXELS * halved))


def usual_network(cases: int, channels: int, *, nested: bool) -> tuple[str, str]:
    """The network of a new plan unless another one is asked for, and why; it is meant to start as `usual_start` says.

    Args:
        cases: how many the data set has.
        nested: whether it learns nested regions.
    """
    if cases > FEW_CASES:
        return "dense", f"dense: the fastest, and {cases} cases are enough for it"
    if channels > 1 or nested:
        return "dense", "dense: small-unet was not measured with several channels or nested regions"
    return "small-unet", (
        f"small-unet: with up to {FEW_CASES} cases it is ahead of dense or level with it, both from shapes, and "
        "predicts more slowly"
    )


def usual_start(network: str, stages: int, channels: int, *, nested: bool) -> tuple[str, str]:
    """What a training starts from unless another start is asked for, and why.

    Args:
        network: its name, `+crf` behind it or not.
        nested: whether it learns nested regions.
    """
    from focalis.networks import split_name  # here: reading a plan does not load torch

    base = split_name(network)[0]
    if base not in SHAPES_OF or stages != STAGES_OF_SHAPES:
        known = " and ".join(SHAPES_OF)
        return SCRATCH, f"random weights: shapes are a start for {known} with {STAGES_OF_SHAPES} stages alone"
    if channels > 2 or nested:
        return SCRATCH, "random weights: shapes were not measured with three channels or nested regions"
    if base == "small-unet":
        measured = "with ten nodules and 350 steps Dice is 0.14 higher on other training cases"
        return (
            SHAPES,
            f"shapes: {measured}" if channels == 1 else "shapes: as with one channel; not measured with two",
        )
    if channels == 2:
        return SHAPES, (
            "shapes: with two channels, ten nodules and 100 steps Dice is 0.50 on other training cases, and from "
            "random weights nothing is marked yet; longer trainings were not measured"
        )
    return SHAPES, "shapes: with ten nodules and 350 steps Dice is 0.15 higher on held-out cases"


def within_memory(plan: Plan) -> Plan:
    """The plan with the largest batch, up to its own, whose training step fits the budget; PlanError if none does."""
    for batch in range(plan.batch, 0, -1):
        smaller = plan.model_copy(update={"batch": batch})
        need = training_bytes(smaller) / 1e9
        if need <= plan.memory_budget_gb:
            reasons = plan.reasons | {"memory_budget_gb": f"a training step is estimated at {need:.1f} GB"}
            if batch < plan.batch:
                why = f"reduced from {plan.batch} to fit the memory budget"
                reasons["batch"] = "; ".join(filter(None, (plan.reasons.get("batch"), why)))
            return smaller.model_copy(update={"reasons": reasons})
    raise PlanError(
        f"a memory budget of {plan.memory_budget_gb:g} GB is too small for one patch of {plan.patch_zyx} voxels "
        f"({need:.1f} GB); raise it, or give a plan with a smaller patch"
    )


def _use(found: Fingerprint) -> tuple[Use, str]:
    """What the model takes, and why."""
    crops = bool((np.multiply(found.shapes_zyx, found.spacings_zyx_mm).max(axis=1) < MOST_CROP_MM).all())
    if crops and found.centred:
        return "guided", (
            "the images are crops with one lesion in the middle, so predict takes points; detector for whole scans"
        )
    return "detector", "predict takes whole images; guided if it is to take points at lesions"


def _training(found: Fingerprint, sides: bool, cubes: bool, reasons: dict[str, str]) -> TrainingSettings:
    """How patches may be flipped and turned: as the cases themselves lie (decision 0014), cubes by quarters (0015); and
    how many hold a lesion."""
    pose = found.pose
    z, y, x = (share >= AGREEMENT_KEPT for share in (pose or Pose()).flipped_zyx)
    why = []
    if pose is None:
        why.append("too few cases to see whether they all lie the same way")
    else:
        fixed = [axis for axis, kept in zip("zyx", (z, y, x), strict=True) if not kept]
        why.append(
            f"the labels all lie the same way along {', '.join(fixed)}, so patches are not mirrored there"
            if fixed
            else "the labels lie any way round, so patches are mirrored along every axis"
        )
    if sides:
        x = False
        why.append("labels name a left and a right side, so not along x")
    free = pose is not None and min(*pose.flipped_zyx, *pose.turned_zyx) >= AGREEMENT_KEPT and not sides
    turns: Mapping[str, Any] = {}
    if free:
        turns = QUARTER_TURNS if cubes else FREE_TURNS
        why.append("turned at will" + (", mostly by quarters, which blurs nothing" if cubes else ""))
    else:
        why.append("turned a little")
    share, empty = LESION_PATCHES, float(np.mean(np.equal(found.foreground_share, 0)))
    if empty:
        share = round(min(LESION_PATCHES / (1 - empty), MOST_LESION_PATCHES), 2)
        rare = 3 * (1 - empty) < 2
        then = (
            f"the others give two thirds of the patches, and {share:.0%} of those hold one"
            if rare
            else f"{share:.0%} of the other cases' patches hold one"
        )
        why.append(f"{empty:.0%} of the cases hold no lesion, so {then}")
    reasons["training"] = "; ".join(why)
    return TrainingSettings(flip_axes_zyx=(z, y, x), foreground_share=share, **turns)


def _has_sides(labels: Mapping[int, str]) -> bool:
    words = {
        word for name in labels.values() for word in name.lower().replace("_", " ").replace("-", " ").split()
    }
    return bool(words & {"left", "right", "l", "r", "lt", "rt"})


def target_spacing(
    spacings_zyx_mm: Sequence[tuple[float, float, float]], reasons: dict[str, str]
) -> tuple[float, float, float]:
    """The spacing (z, y, x; mm) of a plan; why goes into `reasons`."""
    spacings = np.asarray(spacings_zyx_mm)
    target = np.median(spacings, axis=0)
    reasons["spacing_zyx_mm"] = "the median spacing of the training cases"
    coarse = int(np.argmax(target))
    if target[coarse] > ANISOTROPY * target.min():
        target[coarse] = max(np.percentile(spacings[:, coarse], 10), target.min())
        reasons["spacing_zyx_mm"] += (
            "; the coarse axis takes the 10th percentile, so thin slices are not blurred"
        )
    z, y, x = (round(float(value), 4) for value in target)
    return z, y, x


def _normalisation(found: Fingerprint, channel: int, name: str, reasons: dict[str, str]) -> Normalisation:
    before, low = reasons.get("normalisation", ""), found.first_percentile[channel]
    result = Normalisation(kind="zscore")
    named = modality_of(name, result)
    if low < CT_FIRST_PERCENTILE and named in ("", "CT"):
        why = f"{name}: 1st percentile {low:.0f} looks like CT, so a window from the lesions"
        result = Normalisation(
            kind="window",
            low=round(found.foreground_low[channel], 2),
            high=round(found.foreground_high[channel], 2),
            mean=round(found.foreground_mean[channel], 2),
            std=max(round(found.foreground_std[channel], 2), 0.01),
        )
    else:
        scale = f"{named} by its name" if low < CT_FIRST_PERCENTILE else "no Hounsfield scale"
        why = f"{name}: {scale}, so z-score per image"
    reasons["normalisation"] = f"{before}; {why}" if before else why
    return result


def _strides(spacing: Sequence[float], extent: Sequence[float], stages: int) -> tuple[Triple, ...]:
    current, left, strides = np.asarray(spacing, float), np.asarray(extent, float), []
    for _ in range(stages):
        halve = (current <= 2 * current.min()) & (left / 2 >= 3.5)
        stride = np.where(halve, 2, 1)
        current, left = current * stride, left / stride
        strides.append((int(stride[0]), int(stride[1]), int(stride[2])))
    return tuple(strides)


def _wanted(
    shape: NDArray[np.float64], most: int, unit: NDArray[np.float64]
) -> tuple[NDArray[np.float64], bool]:
    """The patch (z, y, x) before it is rounded: a share of the median case, and whether it had to be made smaller.

    Sides that are made smaller are equal, counted in `unit`.
    """
    wanted = shape * PATCH_SHARE
    if np.prod(wanted) <= most:
        return wanted, False
    free = np.ones(3, dtype=bool)
    for _ in range(3):
        room = most / np.prod(wanted[~free]) * np.prod(unit[free])
        side = room ** (1 / free.sum())
        free &= wanted * unit > side
    return np.where(free, side / unit, wanted), True


def _patch(
    shape: NDArray[np.float64],
    wanted: NDArray[np.float64],
    most: int | None,
    stride: Sequence[int],
    reasons: dict[str, str],
) -> Triple:
    patch = [max(round(w / s), 1) * int(s) for w, s in zip(wanted, stride, strict=True)]
    reasons["patch_zyx"] = (
        f"the median case is {' x '.join(str(round(v)) for v in shape)} voxels; "
        + (
            f"capped at {most:,} voxels, for more steps in the same time"
            if most
            else f"{PATCH_SHARE:.0%} of it, so that crops shift"
        )
        + f", as multiples of the total stride {' x '.join(str(int(s)) for s in stride)}"
    )
    return patch[0], patch[1], patch[2]
