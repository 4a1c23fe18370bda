"""The plan: every decision of a training run in one frozen object and one file that a person reads and edits."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from focalis.dataset import GREATEST_LABEL, MOST_LABELS
from focalis.display import Shown
from focalis.errors import PlanError, one_line
from focalis.files import write_text
from focalis.settings import Frozen, first_fault

Triple = tuple[int, int, int]

Readers = Literal["labels", "majority", "staple", "mean", "random"]
"""What a case of several readers trains on: the data set's label map, as if there were no readers; one map that most
readers or STAPLE agree on; the share of the readers who drew each label (soft); a reader drawn at each visit."""


Freeze = Literal["nothing", "encoder", "all-but-head"]
"""Which of the start's weights stay as they are."""
Use = Literal["detector", "guided"]
"""What a model takes: whole scans, or points at lesions and crops around them."""
LEAST_CROP_MM, MOST_CROP_MM = 30.0, 100.0
"""Images whose sides lie between these are crops: no scan is so small, and less shows no surroundings."""
SHAPES_OF = {"dense": "shapes", "small-unet": "shapes-small-unet"}
"""By network, the name of the file with its weights from generated shapes (`focalis.models`)."""
SCRATCH, SHAPES = "scratch", "shapes"
"""Starts by name: random weights, and those that come with Focalis, of a network that has seen generated shapes."""


class Normalisation(Frozen):
    """How one channel's intensities become numbers of order one.

    `zscore` uses the mean and standard deviation of each image. `window` clips to [low, high] (HU, say) and
    then subtracts `mean` and divides by `std`, which were taken from the training cases' foreground; it says that the
    channel is CT, unless the channel's name says otherwise (`focalis.planning.modality`).
    """

    kind: Literal["zscore", "window"] = "zscore"
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)


class _Named(BaseModel):
    """A part by name, its own parameters beside the name. What they are the part says when it is built."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The part's own parameters."""
        return dict(self.model_extra or {})


class NetworkSettings(_Named):
    """Which network, the shape of its stages, and its own parameters if it has any.

    Attributes:
        name: a name that `focalis.networks.network_spec` knows; with `+crf` behind it its probabilities are refined.
        strides_zyx: the down-sampling factor of each stage, in order; their product is what a patch must
            be a multiple of.
    """

    name: str = "dense"
    strides_zyx: tuple[Triple, ...] = ((2, 2, 2), (2, 2, 2), (2, 2, 2))

    @property
    def total_stride_zyx(self) -> Triple:
        """The product of all strides along z, y, x."""
        total = [1, 1, 1]
        for stride in self.strides_zyx:
            total = [t * s for t, s in zip(total, stride, strict=True)]
        return total[0], total[1], total[2]


_FOCAL = ("r", "weight", "k_per_mm", "floor", "cap_mm")
_FOCAL_OF = {
    "distance_focal": _FOCAL,
    "distance_focal_dice": _FOCAL,
    "distance_focal_exponential": ("r", "k_per_mm", "floor"),
    "distance_focal_gaussian": ("r", "k_per_mm", "floor"),
    "distance_focal_reciprocal": ("r", "k_per_mm", "floor"),
    "distance_focal_growth": ("r", "k_per_mm", "floor", "cap_mm"),
    "distance_focal_constant": ("r",),
    "focal": ("r",),
    "dice_cross_entropy": (),
    "present_dice_cross_entropy": (),
    "weighted_cross_entropy": (),
    "tversky": (),
}
"""Plans used to hold the focal parameters whatever the loss; of these each loss takes some."""


class LossSettings(_Named):
    """Which loss, and its own parameters (see `focalis.losses.LOSSES`); those left out have their defaults."""

    name: str = "dice_cross_entropy"

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_plan(cls, content: Any) -> Any:
        """Drop the focal parameters that the loss does not take from a plan that holds all five."""
        if not isinstance(content, dict) or not set(_FOCAL) <= content.keys():
            return content
        taken = _FOCAL_OF.get(content.get("name", "dice_cross_entropy"), _FOCAL)
        return {key: value for key, value in content.items() if key not in _FOCAL or key in taken}


class AugmentationSettings(_Named):
    """Which augmentation of intensities, and its own parameters (see `focalis.augmentations.AUGMENTATIONS`)."""


AUGMENTATION = tuple(
    AugmentationSettings(name=name) for name in ("blur", "noise", "brightness", "contrast", "gamma")
)
"""What plans without entries of their own stand for."""


class TrainingSettings(Frozen):
    """How the network is trained.

    `flip_axes_zyx` says along which axes patches may be mirrored: not along one that tells labels apart. With
    `quarter_turns` every patch is turned by quarters as well, which interpolates nothing; voxels must be cubes.
    A share `turn_share` of the patches is turned, about every axis by up to `turn_limit_deg`. Each of the channels that
    may miss is left out of a share `channel_dropout` of the patches. Of the patches of cases with a lesion a share
    `foreground_share` holds one; of the others a share `hard_negative_share` is drawn where an earlier state of the
    training found false lesions.
    """

    learning_rate: float = Field(default=1.5e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    foreground_share: float = Field(default=0.67, ge=0, le=1)
    hard_negative_share: float = Field(default=0.0, ge=0, le=1)
    flip_axes_zyx: tuple[bool, bool, bool] = (True, True, True)
    quarter_turns: bool = False
    turn_share: float = Field(default=0.4, ge=0, le=1)
    turn_limit_deg: float = Field(default=30.0, ge=0, le=180)
    channel_dropout: float = Field(default=0.3, ge=0, lt=1)


class Plan(Shown, Frozen):
    """What `fit` will do, decided from the data's fingerprint; see `focalis.planning.make_plan`.

    Axes are z, y, x; spacing is in mm; `labels` maps label values to names, without the background 0; voxels of the
    value `ignore` were not judged by anybody. Cases may lack the `channels_may_miss`: zeros stand in for them.
    `regions` maps nested regions to label values, from the outermost to the innermost: each has a sigmoid output.
    `readers` is what cases with several readers train on, see `Readers`.
    `use` says whether the model takes whole scans or points at lesions; plans before there was a choice do not say.
    `start` is what weights training starts from: `scratch`, `shapes`, or the path or name of a model.
    `augmentation` changes the intensities of patches, in that order; turns, scales and flips stand in `training`.
    The network's output channel i + 1 is the i-th label value in ascending order.
    """

    shows: ClassVar[tuple[str, ...]] = (
        "channels",
        "labels",
        "spacing_zyx_mm",
        "patch_zyx",
        "batch",
        "network_name",
        "loss_name",
        "memory_budget_gb",
    )

    version: Literal[1] = 1
    channels: tuple[str, ...] = Field(min_length=1)
    channels_may_miss: tuple[str, ...] = ()
    labels: dict[int, str] = Field(min_length=1)
    ignore: int | None = None
    regions: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    readers: Readers = "labels"
    use: Use | None = None
    spacing_zyx_mm: tuple[float, float, float]
    normalisation: tuple[Normalisation, ...]
    patch_zyx: Triple
    batch: int = Field(ge=1)
    network: NetworkSettings = NetworkSettings()
    loss: LossSettings = LossSettings()
    start: str = SCRATCH
    freeze: Freeze = "nothing"
    training: TrainingSettings = TrainingSettings()
    augmentation: tuple[AugmentationSettings, ...] = AUGMENTATION
    memory_budget_gb: float = Field(default=8.0, gt=0)
    reasons: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        if len(self.normalisation) != len(self.channels):
            raise ValueError(
                f"{len(self.channels)} channels need as many normalisations, not {len(self.normalisation)}"
            )
        if not set(self.channels_may_miss) < set(self.channels):
            raise ValueError("channels_may_miss names no channel, or all of them; one must always be there")
        if len(self.channels) == 1 and any(entry.name == "shift" for entry in self.augmentation):
            raise ValueError(
                "shift moves channels against the first one, and there is no other; leave it out"
            )
        if not all(1 <= value <= GREATEST_LABEL for value in self.labels):
            raise ValueError(f"label values are 1 to {GREATEST_LABEL}; 0 is the background")
        if len(self.labels) > MOST_LABELS:
            raise ValueError(f"{len(self.labels)} labels; {MOST_LABELS} are the most that can be trained")
        if self.ignore is not None and (self.ignore < 1 or self.ignore in self.labels):
            raise ValueError(f"ignore is {self.ignore}; it must be a value from 1 that is not a label")
        chain = [set(values) for values in self.regions.values()]
        if chain and (
            chain[0] != set(self.labels)
            or any(len(outer - inner) != 1 or not inner < outer for outer, inner in pairwise([*chain, set()]))
        ):
            raise ValueError(
                "regions must be nested, from the outermost, and each have one label value of its own"
            )
        if chain and self.network.name.endswith("+crf"):
            raise ValueError("the masks of nested regions are not refined; leave +crf out")
        if min(self.spacing_zyx_mm) <= 0:
            raise ValueError(f"spacing_zyx_mm must be positive, not {self.spacing_zyx_mm}")
        if self.freeze != "nothing" and self.start == SCRATCH:
            raise ValueError(
                f"freeze is {self.freeze}, which keeps weights of the start, but start is {SCRATCH}: random weights"
            )
        training = self.training
        if training.quarter_turns and not (all(training.flip_axes_zyx) and alike(self.spacing_zyx_mm)):
            raise ValueError(
                "training.quarter_turns needs equal spacing along all axes, and patches that are mirrored along each"
            )
        stride = self.network.total_stride_zyx
        if any(size < s or size % s for size, s in zip(self.patch_zyx, stride, strict=True)):
            raise ValueError(
                f"patch_zyx {self.patch_zyx} is not a multiple of the network's total stride {stride}"
            )
        return self

    def without_reasons(self) -> Plan:
        """What is trained, not why: two plans that are alike in it train the same."""
        return self.model_copy(update={"reasons": {}})

    @property
    def label_values(self) -> tuple[int, ...]:
        """The label values in ascending order, of regions from the outermost; output channel i + 1 is the i-th's."""
        chain = [*self.regions.values(), ()]
        own = tuple(min(set(outer) - set(inner)) for outer, inner in pairwise(chain))
        return own or tuple(sorted(self.labels))

    @property
    def network_name(self) -> str:
        """What is trained."""
        return self.network.name

    @property
    def loss_name(self) -> str:
        """By which loss."""
        return self.loss.name

    @property
    def outputs(self) -> int:
        """Number of output channels, the background included."""
        return len(self.labels) + 1


def alike(spacing_zyx_mm: tuple[float, float, float]) -> bool:
    """Whether voxels are cubes, to a hundredth."""
    return max(spacing_zyx_mm) <= 1.01 * min(spacing_zyx_mm)


def read_plan(path: Path) -> Plan:
    """Read a plan file; PlanError names the file and the field that is wrong."""
    try:
        with PlanError.of_system(path, "give the path of a plan.yaml"):
            text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        if isinstance(content, dict):
            content = {"reasons": _reasons(text)} | content
        return Plan.model_validate(content)
    except yaml.YAMLError as error:
        raise PlanError.at(path, f"is not valid YAML ({one_line(error)})") from error
    except ValidationError as error:
        where, what = first_fault(error)
        raise PlanError.at(path, f"{where or 'the plan'}: {what}") from error


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan as YAML, each decision's reason on the comment line above it."""
    lines = [
        "# Focalis plan: edit it and pass it back with `focalis fit DATASET -o RUN --plan plan.yaml`.",
        "",
    ]
    for name, value in plan.model_dump(mode="json", exclude={"reasons"}).items():
        if name in plan.reasons:
            lines.append(f"# {plan.reasons[name]}")
        lines += _yaml_lines(name, value)
    write_text(path, "\n".join(lines) + "\n")


def _reasons(text: str) -> dict[str, str]:
    """The comment line above each top-level field."""
    lines = text.splitlines()
    return {
        below.split(":", 1)[0]: line.removeprefix("# ")
        for line, below in pairwise(lines)
        if line.startswith("# ") and ":" in below and below[0] not in "# "
    }


def _yaml_lines(name: object, value: object, indent: str = "") -> list[str]:
    """A mapping, and a list of mappings, one entry per line, everything else on one line: easy to read and to edit."""
    if isinstance(value, dict) and value:
        inner = [_yaml_lines(key, item, indent + "  ") for key, item in value.items()]
        return [f"{indent}{name}:", *(line for lines in inner for line in lines)]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [f"{indent}{name}:", *(f"{indent}  - {_flow(item)}" for item in value)]
    return [f"{indent}{name}: {_flow(value)}"]


def _flow(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("...\n").strip()
