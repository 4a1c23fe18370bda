"""What the page needs of the device around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from focalis.device.config import Config
from focalis.device.intake import Intake
from focalis.device.mask_job import Voxel
from focalis.device.models import ServedModel
from focalis.device.retraining import Retrainer
from focalis.device.store import Store


@dataclass(frozen=True)
class Device:
    """The running device as its page sees it. The functions are called from threads, never from the event loop.

    Attributes:
        intake: takes in what comes by upload and STOW-RS.
        resend: a dead delivery (task id, SOP Instance UID, destination) is to be tried again at once.
        retry: a failed or refused task (its id) is to be done again.
        point: the lesion at a voxel (z, y, x) of a task's (its id) view (its image file and the type of
            its values) is to be segmented; the answer is that of `focalis.device.segment.point`.
        mask: the mask of an image file, or of a DICOM series, is to be written: a model's name, the files with their
            Instance Numbers, whether they are a series, the file to write, voxels (x, y, z) that were clicked, the type
            of its values (see `MaskJob`); the answer is that of `focalis.device.mask_job.mask`.
        deliver: new deliveries of a task (its id) wait in the store.
        retrainer: trains models on with the reviewers' corrections.
        unready: which parts do not work, a word or two each.
    """

    config: Config
    store: Store
    intake: Intake
    models: Mapping[str, ServedModel]
    version: str
    resend: Callable[[str, str, str], None]
    retry: Callable[[str], None]
    point: Callable[[str, Path, str, tuple[int, int, int]], dict[str, Any]]
    mask: Callable[[str, Mapping[str, int | None], bool, Path, Sequence[Voxel], str], dict[str, Any]]
    deliver: Callable[[str], None]
    unready: Callable[[], list[str]]
    retrainer: Retrainer
