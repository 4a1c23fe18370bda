"""The model file: one `.safetensors` with the weights and, in its header, everything needed to use them.

Nothing is ever unpickled. The header's metadata has one entry, "focalis": JSON with the format version, the
plan, the operating point, the refinement, the calibration for 8-bit integers, the provenance and the SHA-256 of
the weights. The tensors of ensemble member i are named "i.NAME". `torch` is imported only where weights are touched,
so that `open_model` is fast.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from pydantic import ValidationError

from focalis.display import Shown
from focalis.errors import FileWarning, ModelError, one_line
from focalis.files import write_bytes
from focalis.identity import ModelIdentity
from focalis.lesions import OperatingPoint
from focalis.models import OF_A_RUN, model_file
from focalis.planning import LEAST_CROP_MM, MOST_CROP_MM, Plan, Scope
from focalis.plugins import Plugin, installed_version
from focalis.settings import first_fault

if TYPE_CHECKING:
    import torch
    from torch import nn

JSON: TypeAlias = "Mapping[str, JSON] | Sequence[JSON] | str | int | float | bool | None"

FORMAT_VERSION = 2
"""2 added the temperature and what an operating point drops; files of version 1 have neither and still load."""
KEY = "focalis"


@dataclass(frozen=True, repr=False)
class Refinement(Shown):
    """The parameters of the fully connected CRF that refines a model's probabilities; see `prediction.refine`.

    A weight says, in units of the logit, how strongly a voxel follows the others; with both at 0 nothing changes.

    Attributes:
        similar_weight: weight of the kernel of position and intensity.
        similar_mm, similar_intensity: its standard deviations, in mm and in normalised intensity.
        near_weight: weight of the kernel of position alone.
        near_mm: its standard deviation.
        iterations: how often the mean field is updated.
        how: one line on how they were chosen.
    """

    similar_weight: float
    similar_mm: float
    similar_intensity: float
    near_weight: float
    near_mm: float
    iterations: int
    how: str = ""

    def __post_init__(self) -> None:
        if min(self.similar_weight, self.near_weight) < 0 or self.iterations < 0:
            raise ValueError("the weights and the iterations of a refinement are 0 or more")
        if min(self.similar_mm, self.similar_intensity, self.near_mm) <= 0:
            raise ValueError("the widths of a refinement are positive")


@dataclass(frozen=True, repr=False)
class EightBit(Shown):
    """What computing a model's convolutions in 8-bit integers takes, and what it costs.

    Attributes:
        ranges: per member, the name of each convolution to the least and greatest value of its input.
        dice_loss: by how much the mean Dice fell on the calibration cases, at the operating point.
        how: one line on how both were found.
    """

    ranges: tuple[Mapping[str, tuple[float, float]], ...]
    dice_loss: float
    how: str


@dataclass(frozen=True, eq=False, repr=False)
class Model(Shown):
    """A trained model: one network, or several whose probabilities are averaged.

    Attributes:
        plan: the plan it was trained by.
        members: the networks; building a Model puts them in eval mode.
        operating_point: what is reported as a lesion.
        provenance: data hash, code version, scores and the like; plain JSON.
        scope: what the training images were like; None where that is not known.
        refinement: what happens to the probabilities before the decision; None for nothing.
        eight_bit: the calibration for 8-bit integers; None without.
        plugins: the installed packages that its parts came from, as its file names them.
        ready: what prediction keeps of it between cases, such as compiled networks.
    """

    shows = ("network", "channels", "labels", "spacing_zyx_mm", "networks", "threshold", "trained_on")

    plan: Plan
    members: Sequence[nn.Module]
    operating_point: OperatingPoint = field(default_factory=OperatingPoint)
    provenance: Mapping[str, JSON] = field(default_factory=dict)
    scope: Scope | None = None
    refinement: Refinement | None = None
    eight_bit: EightBit | None = None
    plugins: tuple[Plugin, ...] = ()
    ready: dict[object, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.members, _Stored):
            for member in self.members:
                member.eval()

    @property
    def identity(self) -> ModelIdentity:
        """What identifies it in results; a model that was never saved has no name and no file."""
        if isinstance(self.members, _Stored):
            return self.members.identity
        from safetensors.torch import save

        return ModelIdentity(weights_sha256=_sha256(_split(save(_tensors(self.members)))[1]))

    @property
    def network(self) -> str:
        """The name of its network."""
        return self.plan.network.name

    @property
    def channels(self) -> tuple[str, ...]:
        """What it is given, in this order."""
        return self.plan.channels

    @property
    def labels(self) -> Mapping[int, str]:
        """Label value to the name of what it finds."""
        return self.plan.labels

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """The spacing that it works on."""
        return self.plan.spacing_zyx_mm

    @property
    def networks(self) -> int:
        """How many networks are averaged."""
        return len(self.members)

    @property
    def threshold(self) -> float:
        """That of its operating point."""
        return self.operating_point.threshold

    @property
    def guided(self) -> bool:
        """Whether it takes points, or crops around a lesion, in place of whole scans.

        The plan says so. An older plan counts as one of crops if it was made from CT of 30 to 100 mm a side: no scan
        is so small.
        """
        if self.plan.use is not None:
            return self.plan.use == "guided"
        on_ct = all(how.kind == "window" for how in self.plan.normalisation)
        if self.scope is None or not on_ct:
            return False
        return all(LEAST_CROP_MM < side < MOST_CROP_MM for side in self.scope.extent_zyx_mm[1])

    @property
    def crop_zyx_mm(self) -> tuple[float, float, float]:
        """The size of a training image: what a guided model wants to see around a point."""
        if self.scope is not None:
            return self.scope.extent_zyx_mm[1]
        z, y, x = (
            count * step for count, step in zip(self.plan.patch_zyx, self.plan.spacing_zyx_mm, strict=True)
        )
        return z, y, x

    @property
    def most_zyx_mm(self) -> tuple[float, float, float] | None:
        """The size of the largest image that a guided model takes whole, along canonical axes; None of a detector."""
        if not self.guided:
            return None
        if self.scope is not None:
            return self.scope.extent_zyx_mm[2]
        z, y, x = self.crop_zyx_mm
        return 1.5 * z, 1.5 * y, 1.5 * x

    @property
    def trained_on(self) -> str:
        """The name of its training data, where it is known."""
        return str(self.provenance.get("dataset") or "")


class _Stored(Sequence["nn.Module"]):
    """The networks of a model file; read when one of them is first asked for, unless they were."""

    def __init__(
        self, path: Path, count: int, identity: ModelIdentity, members: Sequence[nn.Module] | None = None
    ) -> None:
        self.identity = identity
        self._path, self._count, self._members = path, count, members

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> nn.Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[nn.Module]: ...
    def __getitem__(self, index: int | slice) -> nn.Module | Sequence[nn.Module]:
        if self._members is None:
            model = load_model(self._path)
            if model.identity.weights_sha256 != self.identity.weights_sha256:
                raise ModelError.at(self._path, "changed while it was in use", "start again")
            self._members = model.members
        return self._members[index]


def save_model(model: Model, path: Path, *, half: bool = False) -> None:
    """Write a model to one file, all or nothing: an interrupted write leaves the old file, or none.

    Args:
        half: store the kernels of the convolutions in float16, in half the room. They are computed with in float32
            all the same; what the rounding does to the figures is for the caller to measure.
    """
    from safetensors.torch import save

    from focalis.planning.parts import plugins_of

    tensors, point = _tensors(model.members, half), asdict(model.operating_point)
    content = {
        "version": FORMAT_VERSION,
        "plan": model.plan.model_dump(mode="json"),
        "plugins": [asdict(plugin) for plugin in plugins_of(model.plan)],
        "operating_point": point,
        "temperature": point.pop("temperature"),
        "scope": None if model.scope is None else model.scope.model_dump(mode="json"),
        "refinement": None if model.refinement is None else asdict(model.refinement),
        "provenance": dict(model.provenance),
        "members": len(model.members),
        "weights_sha256": _sha256(_split(save(tensors))[1]),
        "eight_bit": None if model.eight_bit is None else asdict(model.eight_bit),
    }
    text = json.dumps(_finite(content), default=_plain, ensure_ascii=False)
    write_bytes(path, save(tensors, metadata={KEY: text}))


def load_model(path: Path | str) -> Model:
    """Read a model file, or a model that comes with Focalis, by its name.

    Raises:
        ModelError: the file is missing, damaged, foreign or too new; it is named.
        UsageError: a bare word that is neither a file nor a known name, see `focalis.models.model_file`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from focalis.planning.parts import network_of

    path = model_file(path)
    blob = _read(path)
    found, weights = _parsed(blob, path)
    if _sha256(weights) != found.identity.weights_sha256:
        raise ModelError.at(path, "the weights do not match their checksum", "copy the file again")
    try:
        tensors = load(blob)
    except SafetensorError as error:
        raise ModelError.at(path, f"damaged weights ({one_line(error)})", "copy it again") from error
    _require_plugins(path, found)
    members = []
    for number in range(len(found.members)):
        prefix = f"{number}."
        names = [name for name in tensors if name.startswith(prefix)]
        try:
            network = network_of(found.plan)
            network.load_state_dict({name.removeprefix(prefix): tensors.pop(name) for name in names})
        except Exception as error:  # a header that names a network or shapes that the weights do not fit
            raise ModelError.at(
                path, f"the weights do not fit its plan's network ({one_line(error)})", "save it again"
            ) from error
        members.append(network.eval())
    if tensors:
        raise ModelError.at(
            path, f"holds weights of no member, such as {min(tensors)}", "save the model again"
        )
    return replace(found, members=_Stored(path, len(members), found.identity, tuple(members)))


def _require_plugins(path: Path, model: Model) -> None:
    """ModelError if the network is that of a package which is not installed; a warning if it is of another version."""
    for plugin in model.plugins:
        if plugin.kind != "network":  # the others are not needed to predict
            continue
        here = installed_version(plugin)
        if here is None:
            raise ModelError.at(
                path,
                f"its network {plugin.name!r} comes from the package {plugin.package} {plugin.version}, "
                "which is not installed",
                f"install it from its author (pip install {plugin.package}=={plugin.version} gets whatever has that "
                "name on your index)",
            )
        if here != plugin.version:
            fault = f"was trained with {plugin.package} {plugin.version}, and {here} is installed"
            warnings.warn(FileWarning(path, fault, "its masks may differ"), stacklevel=2)


def open_model(path: Path | str) -> Model:
    """A model whose networks are read, and `torch` imported, when they are first needed; errors as of `load_model`.

    What is wrong with the weights shows only then.
    """
    path = model_file(path)
    return _parsed(_read(path), path)[0]


def _tensors(members: Sequence[nn.Module], half: bool = False) -> dict[str, torch.Tensor]:
    import torch

    def stored(tensor: torch.Tensor) -> torch.Tensor:
        # Statistics and scales of a normalisation stay: they are few, and a variance may not fit float16.
        kernel = half and tensor.dim() > 1 and tensor.is_floating_point()
        # Copies: the file format knows neither strides nor storages that several tensors share.
        copy = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        return copy.to(torch.float16) if kernel else copy

    return {
        f"{number}.{name}": stored(tensor)
        for number, member in enumerate(members)
        for name, tensor in member.state_dict().items()
    }


def _parsed(blob: bytes, path: Path) -> tuple[Model, bytes]:
    """What a file says about itself, its networks not read yet, and its weights."""
    try:
        head, weights = _split(blob)
        metadata = json.loads(head).get("__metadata__", {})
    except (ValueError, AttributeError) as error:
        raise ModelError.at(
            path, "is not a .safetensors file, or is cut short", "give a model written by Focalis"
        ) from error
    if KEY not in metadata:
        raise ModelError.at(path, "has no Focalis header", "give a model written by Focalis")
    try:
        content = json.loads(metadata[KEY])
        version = content["version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise ModelError.at(
                path, f"has format version {version}, this Focalis reads {FORMAT_VERSION}", "update Focalis"
            )
        point = content["operating_point"]
        refinement = content.get("refinement")  # files written before there was any have no such entry
        curve = tuple((float(x), float(y)) for x, y in point["curve"] if x is not None and y is not None)
        count = int(content["members"])
        model = Model(
            plan=Plan.model_validate(content["plan"]),
            operating_point=OperatingPoint(
                float(point["threshold"]),
                str(point["how"]),
                curve,
                float(point.get("minimum_mm3", 0.0)),
                float(point.get("minimum_confidence", 0.0)),
                tuple((float(c), float(x), float(y)) for c, x, y in point.get("froc", ())),
                temperature=float(content.get("temperature", 1.0)),
                **{name: int(point[name]) for name in ("lesions", "found") if point.get(name) is not None},
                promise=str(point.get("promise", "")),
                second_look=tuple(float(weight) for weight in point.get("second_look", ())),
            ),
            provenance=content["provenance"],
            members=_Stored(
                path, count, ModelIdentity(_name(path), _sha256(blob), str(content["weights_sha256"]))
            ),
            scope=Scope.model_validate(content["scope"]) if content.get("scope") else None,
            refinement=None if refinement is None else Refinement(**refinement),
            eight_bit=_eight_bit(content.get("eight_bit")),
            plugins=tuple(Plugin(**plugin) for plugin in content.get("plugins", ())),
        )
    except ValidationError as error:
        where, what = first_fault(error)
        raise ModelError.at(
            path, f"the plan in its header is not valid: {where or 'plan'}: {what}", "save the model again"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError.at(
            path, f"its Focalis header is malformed ({one_line(error)})", "save the model again"
        ) from error
    if count < 1:
        raise ModelError.at(path, "holds no network", "save the model again")
    return model, weights


def _eight_bit(content: Any) -> EightBit | None:
    """The calibration in a header; files written before there was any have none."""
    if content is None:
        return None
    ranges = tuple(
        {str(name): (float(low), float(high)) for name, (low, high) in member.items()}
        for member in content["ranges"]
    )
    return EightBit(ranges, float(content["dice_loss"]), str(content["how"]))


def _split(blob: bytes) -> tuple[bytes, bytes]:
    """The JSON header and the weights of a .safetensors file (8 bytes of length, the header, the rest)."""
    length = int.from_bytes(blob[:8], "little")
    if len(blob) < 8 or length < 2 or length > len(blob) - 8:
        raise ValueError("the header is cut short")
    return blob[8 : 8 + length], blob[8 + length :]


def _read(path: Path) -> bytes:
    with ModelError.of_system(path, "give the path of a .safetensors model"):
        return path.read_bytes()


def _name(path: Path) -> str:
    return path.absolute().parent.name if path.name == OF_A_RUN else path.stem


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _finite(value: Any) -> Any:
    """The value with NaN and infinity, which JSON does not know, as null."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    """numpy scalars and paths, which provenance tends to pick up, as JSON."""
    item = getattr(value, "item", None)
    return _finite(item()) if callable(item) else str(value)
