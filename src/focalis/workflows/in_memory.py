"""A model for images that lie in memory: `focalis.load(...).segment(array, spacing_mm=...)`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from focalis.lesions import promised_of
from focalis.model import Model, load_model
from focalis.prediction import Segmentation, Settings, segment, segment_at
from focalis.volume import ORIENTATION, Absent, volumes_in_memory
from focalis.workflows.points import Given, places_given
from focalis.workflows.scope import check_scope, outside_line
from focalis.workflows.training_cases import SeenCases, seen_alone


class ScopeWarning(UserWarning):
    """An image lies outside of what the model was trained on."""


class TrainingCaseWarning(UserWarning):
    """An image trained the model, or chose its operating point."""


class LoadedModel(Model):
    """`focalis.Model`: a trained model that segments images in memory; see `focalis.model.Model` for its attributes."""

    def segment(
        self,
        image: Any,
        spacing_mm: Sequence[float] | None = None,
        *,
        orientation: str = ORIENTATION,
        settings: Settings | Mapping[str, Any] | None = None,
        at: Given | Sequence[Given] = (),
        at_voxel: Given | Sequence[Given] = (),
    ) -> Segmentation:
        """Segment one case, as `focalis predict` does.

        Args:
            image: a NumPy array or torch tensor (z, y, x), a SimpleITK or nibabel image; of several channels a list of
                them, in the order of `channels`, an array (channel, z, y, x) or a nibabel image of four axes. In a list
                None stands for a channel that the case lacks, if the model was trained to go without it.
            spacing_mm: of an array or tensor, the distance between voxel centres along z, y, x. Images know theirs.
            orientation: where the axes z, y, x of an array or tensor point as their index grows: SPL, if not given, is
                from the feet to the head, from front to back, from the patient's right to the left. The axes may also
                come in another order, such as RAS for what nibabel loads; `spacing_mm` follows.
            at: for a guided model, a point in each lesion, or the two ends of a line across it: x, y, z in mm in the
                patient (LPS); in an array, whose first voxel lies at 0, along these axes by its orientation.
            at_voxel: the same as indices from 0, in the order of the axes of what is given: z, y, x of an array or a
                SimpleITK image, x, y, z of a nibabel image.
            settings: how, also as a mapping; the defaults are those of `focalis predict`.

        Returns:
            The mask and what belongs to it; with points, `pointed` says what became of each. Its arrays have the axes
            of what was given: x, y, z for a nibabel image.

        Raises:
            UsageError: an array without spacing, an orientation that is none, or a kind that is not known.
            DataError: no image of real numbers, or channels on different grids.
            ModelError: the model cannot take the image; see `focalis.prediction.segment`.
        """
        settings = Settings.given(settings)
        volumes, axes = volumes_in_memory(image, spacing_mm, orientation)
        places = places_given(at)
        places += tuple(
            replace(each, ends=tuple(end[:: -1 if axes == "zyx" else 1] for end in each.ends))
            for each in places_given((), at_voxel)
        )
        outside = check_scope(self, volumes, places=places)
        if outside:
            warnings.warn(f"the image {outside_line(outside)}", ScopeWarning, stacklevel=2)
        if seen := SeenCases.of(self).find("", volumes):
            warnings.warn(f"the image {seen_alone(seen)}", TrainingCaseWarning, stacklevel=2)
        found = segment_at(self, volumes, places, settings) if places else segment(self, volumes, settings)
        promise = promised_of(
            found.point.promise,
            outside=bool(outside),
            missing=any(isinstance(volume, Absent) for volume in volumes),
        )
        return replace(found, outside=outside, point=replace(found.point, promise=promise)).along(axes)


def load(path: Path | str) -> LoadedModel:
    """Read a model file, the model of a run by its folder, or one that comes with Focalis by its name.

    Raises:
        ModelError: the file is missing, damaged, foreign or too new; it is named.
        UsageError: a bare word that is neither a file nor a known name.
    """
    found = load_model(path)
    return LoadedModel(**{field.name: getattr(found, field.name) for field in fields(found) if field.init})
