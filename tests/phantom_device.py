"""A device with phantom studies in its store, as tests and the documentation's pictures need it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from dicom_fixtures import _write_series
from small_plan import small_plan
from torch import nn

from focalis.dataset.phantoms import PhantomSettings, make_phantom
from focalis.device.config import Config, Destination, Route
from focalis.device.intake import Intake
from focalis.device.models import ServedModel
from focalis.device.records import Header
from focalis.device.retraining import Retrainer
from focalis.device.store import Store
from focalis.device.web.device import Device
from focalis.device.written import FOLLOW_UP, folder_for_more, keep_more, keep_note
from focalis.dicom import Caution, Origin, read_series, write_segmentation
from focalis.identity import ModelIdentity
from focalis.lesions import OperatingPoint
from focalis.model import Model

MODEL_SHA256 = "7" * 64
MODEL_IDENTITY = ModelIdentity("nodules", MODEL_SHA256, "8" * 64)
CURVE = tuple((at / 20, 0.71 - 0.6 * (at / 20 - 0.45) ** 2) for at in range(1, 20))


@dataclass
class PhantomDevice:
    """A store with studies, and what the page called."""

    folder: Path
    config: Config
    store: Store = field(init=False)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    unready: list[str] = field(default_factory=list)
    models: dict[str, ServedModel] = field(init=False)
    guided: bool = False
    pointed: Callable[[tuple[int, int, int]], dict[str, Any]] | None = None
    """What becomes of a click at a voxel (z, y, x), as `focalis.device.segment.point` answers."""
    masked: Callable[..., dict[str, Any]] | None = None
    """What becomes of an image that a viewer wants segmented, as `focalis.device.mask_job.mask` answers."""

    def __post_init__(self) -> None:
        self.store = Store(self.folder / "store", objects=self.config.store.objects)
        self.intake = Intake(self.store, self.config)

    def close(self) -> None:
        self.intake.close()
        self.store.close()

    def device(self, model: Path = Path("nodules.safetensors")) -> Device:
        """What `create_app` takes."""

        def noted(name: str) -> Callable[..., None]:
            return lambda *arguments: self.calls.append((name, *arguments))

        self.models = {"nodules": ServedModel("nodules", model, header(self.guided))}
        return Device(
            config=self.config,
            store=self.store,
            intake=self.intake,
            models=self.models,
            version="0.1.0",
            resend=noted("resend"),
            retry=noted("retry"),
            point=lambda _task, _image, _dtype, at: self.pointed(at) if self.pointed else {},
            mask=lambda *arguments: self.masked(*arguments) if self.masked else {},
            deliver=noted("deliver"),
            unready=lambda: self.unready,
            retrainer=Retrainer(self.config, self.store, self.models),
        )

    def receive(
        self,
        patient: str,
        *,
        seed: int = 0,
        lesions: int = 3,
        shape_zyx: tuple[int, int, int] = (12, 24, 24),
        spacing_zyx_mm: tuple[float, float, float] = (2.0, 1.0, 1.0),
        share: float = 0.01,
        complete: bool = True,
        **attributes: Any,
    ) -> tuple[str, np.ndarray]:
        """Keep a phantom series; its UID and its lesions."""
        settings = PhantomSettings(
            shape_zyx=shape_zyx, spacing_zyx_mm=spacing_zyx_mm, lesions=lesions, foreground_share=share
        )
        phantom = make_phantom(settings, seed)
        folder = self.folder / "sent" / f"{patient.encode().hex()[:24]}-{seed}"
        named = {"PatientName": patient, "PatientID": f"P{seed:03d}", **attributes}
        paths = _write_series(folder, phantom.image.array, phantom.image.grid, modality="MR", **named)
        for path in paths:
            data = pydicom.dcmread(path, stop_before_pixels=True)
            header = Header(
                sop_uid=data.SOPInstanceUID,
                sop_class=data.SOPClassUID,
                series_uid=data.SeriesInstanceUID,
                study_uid=data.StudyInstanceUID,
                transfer_syntax=data.file_meta.TransferSyntaxUID,
                modality=data.Modality,
                description=data.SeriesDescription,
            )
            self.store.keep(path, header, "C-STORE MR1 10.0.0.7")
        if complete:
            self.store.complete(header.series_uid)
        return header.series_uid, phantom.truth.array

    def finish(
        self,
        series_uid: str,
        truth: np.ndarray,
        *,
        supersedes: str | None = None,
        cautions: tuple[Caution, ...] = (),
        held: str | None = None,
    ) -> str:
        """Add the task of a series, or take the one that was held, and add its Segmentation; the task's id."""
        instances = self.store.instances(series_uid)
        task_id = held or hashlib.sha256((series_uid + str(supersedes)).encode()).hexdigest()[:40]
        if held is None:
            self.store.add_task(
                task_id, series_uid, "nodules", MODEL_SHA256, task_id.ljust(64, "0"), supersedes=supersedes
            )
        series = read_series(self.store.at_hand(instances))
        with folder_for_more(self.store, task_id) as folder:
            path = folder / "seg-1.dcm"
            write_segmentation(
                truth,
                {1: "lesion"},
                series,
                path,
                Origin(MODEL_IDENTITY, "0.1.0", cautions=cautions),
            )
            uid = str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            made = {"kind": "seg", "file": path.name, "sop_uid": uid, "sha256": content}
            keep_more(self.store, task_id, folder, [made])
        for destination in self.config.destinations:
            if "seg" in destination.objects:
                self.store.add_delivery(task_id, "seg", uid, destination.name)
        self.store.set_task_state(task_id, "done", seconds=4.2)
        return task_id

    def hold(self, series_uid: str) -> str:
        """Add the task of a series that waits for somebody to point at lesions; the task's id."""
        task_id = hashlib.sha256(series_uid.encode()).hexdigest()[:40]
        self.store.add_task(task_id, series_uid, "nodules", MODEL_SHA256, task_id.ljust(64, "0"))
        self.store.set_task_state(task_id, "held", "the model takes points")
        return task_id

    def follow(self, task_id: str, earlier: str, **content: Any) -> None:
        """A follow-up of a task: its first lesion grew, its second is new; the patient lies 2 mm higher now."""
        size = {"volume_mm3": 500.0, "longest_axial_mm": 9.0}
        row = {"name": "lesion", "merged_into": None, "earlier_size": None, "size": size, "change": None}
        change = {"volume_percent": 25.0, "volume_beyond_error": True}
        told = {
            "task": earlier,
            "day": "2026-01-05",
            "registered": True,
            "similarity": 0.91,
            "matrix": np.eye(3).tolist(),
            "offset_mm": [0.0, 0.0, 2.0],
            "error": {"source": "a second prediction"},
            "lesions": [
                {
                    **row,
                    "earlier": [1],
                    "lesions": [1],
                    "status": "persistent",
                    "earlier_size": {**size, "volume_mm3": 400.0},
                    "change": change,
                },
                {**row, "earlier": [], "lesions": [2], "status": "new"},
            ],
            "notes": [],
            "tracking": {"1": "2.25.17"},
            "remarks": {"1": "volume +25 %", "2": "new"},
            "summary": "Follow-up since 2026-01-05: 1 persistent, 1 new.",
        } | content
        keep_note(self.store, task_id, FOLLOW_UP, json.dumps(told))

    def study(self, patient: str, **options: Any) -> str:
        """A study that was received and segmented; the task's id."""
        return self.finish(*self.receive(patient, **options))


def header(guided: bool = False) -> Model:
    """What a model says about itself that was trained on phantoms."""
    return Model(
        plan=small_plan(
            use="guided" if guided else "detector", spacing_zyx_mm=(2.0, 1.0, 1.0), patch_zyx=(32, 32, 32)
        ),
        operating_point=OperatingPoint(
            0.45,
            "best mean Dice of the foreground on 6 cases of the inner split",
            CURVE,
            minimum_mm3=12.5,
            minimum_confidence=0.6,
        ),
        provenance={
            "dataset": "phantoms",
            "data_sha256": "3" * 64,
            "seed": 0,
            "steps": 1200,
            "parameters": 2146826,
            "training_seconds": 557.5,
            "finished": "2026-01-02T03:04:05+00:00",
            "packages": {"focalis": "0.1.0"},
            "cases": {
                "train": [f"phantom_{n:03d}" for n in range(24)],
                "inner": [f"phantom_{n:03d}" for n in range(24, 30)],
            },
        },
        members=(nn.Identity(),),
    )


PACS = Destination(name="pacs", ae_title="PACS", host="10.0.0.2", port=104)
ROUTE = Route(model="nodules", modality="MR")
