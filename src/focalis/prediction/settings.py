"""How images become masks: one frozen object for every way to a mask, which goes into the records as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from focalis.display import Shown
from focalis.errors import UsageError, did_you_mean
from focalis.lesions import OperatingPoint
from focalis.model import Model
from focalis.prediction.choice import require_runtime

DEFAULT_MEMORY_GB = 4.0
_KINDS: Mapping[str, tuple[tuple[type, ...], str, Callable[[Any], object]]] = {
    "float": ((Real,), "a number", float),
    "int": ((Integral,), "a whole number", int),
    "bool": ((bool, np.bool_), "True or False", bool),
    "str": ((str,), "a text", str),
}
"""By a setting's type: what its value may be, that in words, and its kind in Python."""
_DROPS = ("minimum_mm3", "minimum_confidence")
_NUMBERS = ("threshold", *_DROPS)
"""The settings that take the place of a number of the operating point."""


@dataclass(frozen=True, repr=False)
class Settings(Shown):
    """How to segment; what is None is the model's own.

    Attributes:
        threshold: on the foreground probability, in (0, 1).
        minimum_mm3: smaller lesions are dropped.
        minimum_confidence: lesions whose highest probability stays below are dropped, 0 to 1. Either of the two takes
            the place of the model's second look.
        mirror: average over the mirror images, up to eight, as far as the plan mirrors.
        uncertainty: also say how far the passes disagree, those of the members and of the mirror images.
        refine: refine the probabilities by the model's fully connected CRF; by default if it has one.
        memory_gb: the most memory that the program may take, in 10^9 bytes; an image that needs more is cut into tiles.
        runtime: auto, torch, openvino or openvino-int8, see `runtime_for`.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, float32, bfloat16 or float16.
        threads: of the processor; as many as there are by default.

    Raises:
        UsageError: a value is wrong, or not possible on this machine.
    """

    shows = (
        "threshold",
        "minimum_mm3",
        "minimum_confidence",
        "mirror",
        "uncertainty",
        "refine",
        "memory_gb",
        "runtime",
        "device",
        "precision",
        "threads",
    )

    threshold: float | None = None
    minimum_mm3: float | None = None
    minimum_confidence: float | None = None
    mirror: bool = False
    uncertainty: bool = False
    refine: bool | None = None
    memory_gb: float = DEFAULT_MEMORY_GB
    runtime: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        self._require_types()
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UsageError(f"threshold {self.threshold} does not lie between 0 and 1; give one that does")
        if self.minimum_mm3 is not None and not 0 <= self.minimum_mm3 < float("inf"):
            raise UsageError(f"a minimum size of {self.minimum_mm3} mm3 is not possible; give 0 or more")
        if self.minimum_confidence is not None and not 0 <= self.minimum_confidence <= 1:
            raise UsageError(
                f"minimum confidence {self.minimum_confidence} does not lie between 0 and 1; give one that does"
            )
        if not 0 < self.memory_gb < float("inf"):
            raise UsageError(f"a memory budget of {self.memory_gb} GB is not possible; give a number above 0")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads is {self.threads}; give 1 or more")
        require_runtime(self.runtime, self.device, self.precision)

    @classmethod
    def given(cls, settings: Settings | Mapping[str, Any] | None) -> Settings:
        """Settings as a caller gives them: also as a mapping of names to values; None for the defaults.

        Raises:
            UsageError: something else, an unknown name or a wrong value.
        """
        if settings is None or isinstance(settings, Settings):
            return settings or cls()
        if not isinstance(settings, Mapping):
            raise UsageError(f"settings are {settings!r}; give focalis.Settings(...)")
        known = [each.name for each in fields(cls)]
        for name in settings:
            if name not in known:
                raise UsageError(
                    f"there is no setting {name!r}; choose from {', '.join(known)}"
                    f"{did_you_mean(str(name), known)}"
                )
        return cls(**settings)

    def _require_types(self) -> None:
        """UsageError for a value of another kind than its setting's; numbers of NumPy become Python's."""
        for each in fields(self):
            value = getattr(self, each.name)
            kinds, wanted, plain = _KINDS[str(each.type).removesuffix(" | None")]
            if value is None and str(each.type).endswith("None"):
                continue
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise UsageError(f"{each.name} is {value!r}; give {wanted}")
            if not isinstance(value, bool | int | float | str):
                object.__setattr__(self, each.name, plain(value))

    def for_model(self, model: Model) -> Settings:
        """The same without mirror images if the model's plan mirrors along no axis.

        Raises:
            UsageError: the model cannot do what is asked for.
        """
        if self.refine and model.refinement is None:
            from focalis.networks import REFINED  # loads torch, without which a prediction may do

            network = model.plan.network.name.removesuffix(REFINED) + REFINED
            raise UsageError.of_option(
                f"the model holds no refinement; train it with network={network!r}, or leave refine out",
                f"the model holds no refinement; train it as `focalis fit --network {network}`, or leave --refine out",
            )
        mirrors = any(model.plan.training.flip_axes_zyx)
        mirror = self.mirror and mirrors
        if self.uncertainty and len(model.members) * (1 + mirror) < 2:
            fault = "uncertainty needs several passes, and the model has one member"
            if not mirrors:
                raise UsageError(f"{fault}; its plan mirrors along no axis: train folds")
            raise UsageError.of_option(f"{fault}; add mirror=True", f"{fault}; add --mirror")
        return replace(self, mirror=mirror)

    def for_places(self) -> Settings:
        """The same for lesions that a person points at: none is dropped, unless that was asked for."""
        return replace(
            self, minimum_mm3=self.minimum_mm3 or 0.0, minimum_confidence=self.minimum_confidence or 0.0
        )

    def point_of(self, model: Model, *, pointed: bool = False) -> OperatingPoint:
        """The operating point to report by; it says where its numbers come from.

        Args:
            pointed: whether a person points at the lesions, see `for_places`.
        """
        own = model.operating_point
        given: dict[str, Any] = {name: getattr(self, name) for name in _NUMBERS}
        given = {name: value for name, value in given.items() if value is not None}
        waived = {name: 0.0 for name in _DROPS if pointed and name not in given}
        rest = len(given) + len(waived) < len(_NUMBERS)
        how = f"the model's: {own.how}"
        if given or waived:
            origins = [f"{_listed(given)} given"] if given else []
            origins += [f"no {_listed(waived, ' or ')} because a person pointed"] if waived else []
            how = ", ".join(origins + ["the rest the model's"] * rest)
        if self.mirror and rest:
            how += "; chosen without mirror images"
        given |= waived
        promise = own.promise
        if promise and (given or self.mirror):
            what = "its own operating point" if given else "predictions without mirror images"
            promise = f"none: the model's promise is for {what}"
        # it was learned from the components at the model's own threshold, in place of the model's own dropping
        other = given.get("threshold", own.threshold) != own.threshold
        other = other or bool(given.keys() & _DROPS)
        return replace(own, how=how, promise=promise, second_look=() if other else own.second_look, **given)

    def changed(self) -> Mapping[str, Any]:
        """The settings that are not the default."""
        usual = Settings()
        return {name: value for name, value in asdict(self).items() if value != getattr(usual, name)}

    def record(self) -> Mapping[str, Any]:
        """For records: every setting that is not left to the model."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _listed(names: Iterable[str], between: str = ", ") -> str:
    """Numbers of an operating point, in words."""
    return between.join(name.replace("_mm3", " size").replace("_", " ") for name in names)
