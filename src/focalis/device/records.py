"""The records that the device keeps, one frozen class per kind. Times are UTC (ISO 8601); none names a patient."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

Kept = Literal["kept", "known", "quarantined"]
SeriesState = Literal["receiving", "complete", "incomplete", "unrouted"]
TaskState = Literal[
    "waiting",
    "checking",
    "segmenting",
    "writing",
    "sending",
    "done",
    "out of scope",
    "held",
    "refused",
    "failed",
]
ResultKind = Literal["seg", "rtstruct", "sr", "capture", "correction", "correction-rtstruct", "correction-sr"]
SentKind = ResultKind | Literal["images"]
DeliveryState = Literal["waiting", "sent", "stored", "committed", "dead"]
"""What a destination with storage commitment took is "stored" until it reports that it keeps it."""
NoticeEvent = Literal["person", "dead", "disk", "done", "test"]
RetrainingState = Literal["exporting", "training", "judging", "done", "failed", "cancelled"]
UNDER_WAY: tuple[RetrainingState, ...] = ("exporting", "training", "judging")
Verdict = Literal["accepted", "rejected"]
Role = Literal["viewer", "reviewer", "admin"]
Level = Literal["info", "warning", "error"]


def now() -> str:
    """The time as the records write it; such texts sort as the times do."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Header:
    """What the device needs to know about a received DICOM instance.

    Attributes:
        expected: how many instances the series has by its own word; None if it does not say.
        frames: images in this instance.
        acquisition: its Acquisition Number; empty if it has none.
        acquisition_images: how many images the acquisition has by its own word.
        normal: the direction across its slice, rounded, as text; empty if it has no place in the patient.
        position_mm: its place along that direction.
        person: a hash of Patient ID and its issuer; empty without a Patient ID.
        namesake: a hash of the Patient ID without what spellings of one differ in; empty without a Patient ID.
        told: attributes that routes ask for, as text; several values with a backslash between them.
    """

    sop_uid: str
    sop_class: str
    series_uid: str
    study_uid: str
    transfer_syntax: str
    modality: str = ""
    body_part: str = ""
    description: str = ""
    manufacturer_model: str = ""
    expected: int | None = None
    frames: int = 1
    number: int | None = None
    acquisition: str = ""
    acquisition_images: int | None = None
    normal: str = ""
    position_mm: float | None = None
    person: str = ""
    namesake: str = ""
    told: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Staged:
    """Received bytes on the disk, not yet examined: a temporary file of the store."""

    path: Path
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Instance:
    """A received instance; `path` is its file under the device's own name. The last are as in `Header`.

    Attributes:
        left_out: whether it is not segmented, because it differs from nearly all others of its series.
    """

    sop_uid: str
    series_uid: str
    study_uid: str
    sha256: str
    bytes: int
    source: str
    received_at: str
    path: Path
    frames: int = 1
    number: int | None = None
    acquisition: str = ""
    acquisition_images: int | None = None
    normal: str = ""
    position_mm: float | None = None
    left_out: int = 0


@dataclass(frozen=True)
class SeriesRow:
    """A series and how much of it is there; patient name and ID live only in its files.

    Attributes:
        reason: why it is incomplete.
        released: who released it although it is incomplete; empty if nobody did.
        pause_seconds: the longest pause after which more of it came.
        told: the same as in `Header`, of all its images together, as JSON.
    """

    series_uid: str
    study_uid: str
    modality: str
    body_part: str
    description: str
    manufacturer_model: str
    instances: int
    state: SeriesState
    first_at: str
    last_at: str
    open_associations: int
    expected: int | None
    reason: str = ""
    released: str = ""
    pause_seconds: float = 0.0
    person: str = ""
    namesake: str = ""
    told: str = "{}"


@dataclass(frozen=True)
class Quarantined:
    """An object that is kept aside; `path` is its file.

    Attributes:
        reason: what is wrong with it, with the numbers.
        cause: the same without them.
        sop_uid: of a damaged object, the instance that a whole one would be.
    """

    sha256: str
    bytes: int
    reason: str
    source: str
    at: str
    series_uid: str | None
    path: Path
    cause: str
    sop_uid: str | None = None


@dataclass(frozen=True)
class SeriesTask:
    """One series to be segmented by one model.

    Attributes:
        partial: why the series is not whole; empty if it is.
        outside: how the series lies outside of what the model was trained on, one line; empty if it does not.
        released: who had it segmented although it lies outside; empty if nobody did.
        urgent: whether it comes before others.
        shadow_of: the task beside whose results those of this one are kept; they are not sent. Empty otherwise.
    """

    task_id: str
    series_uid: str
    model: str
    model_sha256: str
    input_sha256: str
    state: TaskState
    reason: str
    created_at: str
    updated_at: str
    seconds: float | None
    supersedes: str | None
    superseded_by: str | None
    partial: str = ""
    outside: str = ""
    released: str = ""
    urgent: int = 0
    shadow_of: str = ""


@dataclass(frozen=True)
class Roles:
    """Which models take the place of one that routes name.

    Attributes:
        model: the one that the route names.
        current, shadow: the one whose results are sent, and the one on trial.
        stated: the route's own shadow at that time; empty if it had none.
    """

    model: str
    current: str
    shadow: str
    stated: str


@dataclass(frozen=True)
class Retraining:
    """A model that is, or was, trained on from another one with the reviewers' corrections.

    Attributes:
        number: counts all retrainings.
        model: the one it starts from.
        name: of the new one.
        reason: why it ended without a new model; empty otherwise.
        who: who began it.
        sha256: of the new model's file; empty until there is one.
        judged: the figures of both models on the held-out corrections, as `focalis.device.retrain.retrain` says.
    """

    number: int
    model: str
    name: str
    state: RetrainingState
    reason: str
    who: str
    at: str
    ended_at: str
    sha256: str
    judged: dict[str, Any]

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self.state in UNDER_WAY


@dataclass(frozen=True)
class EarlierStudy:
    """A series of the same person that was segmented before.

    Attributes:
        files: file to Instance Number, None without one.
        segmentation: its Segmentation, the corrected one if there is one.
        report: the Structured Report to it.
        model_sha256: the file of the model that segmented it.
    """

    task_id: str
    files: dict[str, int | None]
    segmentation: str
    report: str
    model_sha256: str


@dataclass(frozen=True)
class ResultObject:
    """An object that was made for a task, written once."""

    task_id: str
    kind: ResultKind
    sop_uid: str
    sha256: str
    path: Path


Held = Instance | Quarantined | ResultObject
"""What the store keeps as a file, which `focalis.device.store.Store.at_hand` makes ready to be read."""


@dataclass(frozen=True)
class Delivery:
    """One result on its way to one destination; of "images" `sop_uid` is that of the series."""

    task_id: str
    kind: SentKind
    sop_uid: str
    destination: str
    state: DeliveryState
    attempts: int
    last_error: str
    next_at: str | None
    sent_at: str | None


@dataclass(frozen=True)
class Notice:
    """Something that a recipient of focalis.toml is to be told.

    Attributes:
        event: what happened, see `focalis.device.config.Recipient`.
        text: one line; names no patient.
    """

    number: int
    recipient: str
    event: NoticeEvent
    text: str
    at: str
    task_id: str | None
    series_uid: str | None
    state: DeliveryState
    attempts: int
    last_error: str
    next_at: str | None


@dataclass(frozen=True)
class Review:
    """A person's verdict on one lesion of a task's result."""

    task_id: str
    lesion: int
    verdict: Verdict
    by: str
    at: str


@dataclass(frozen=True)
class Edit:
    """A person's change of a lesion's outline.

    Attributes:
        number: rises through all edits of the store.
        operation: grow, shrink, cut or redraw.
        voxels: the voxels that it adds or removes: x, y, z of each in mm (LPS), as JSON.
        before: the verdict before it; empty if there was none.
    """

    number: int
    task_id: str
    lesion: int
    operation: str
    voxels: str
    before: str
    by: str
    at: str


@dataclass(frozen=True)
class Account:
    """A user who was added on the page, or has come by single sign-on.

    Attributes:
        password_hash: as in focalis.toml; empty by single sign-on.
        subject: by single sign-on, what the provider knows the user by, after its address; else empty.
    """

    name: str
    password_hash: str
    role: Role
    disabled: bool = False
    subject: str = ""


@dataclass(frozen=True)
class Audited:
    """A line of the audit trail: who did what, when and from where."""

    number: int
    at: str
    who: str
    address: str
    did: str
    task_id: str | None
    series_uid: str | None


@dataclass(frozen=True)
class Refusal:
    """A kind of refusal of a sender, and how often it happened."""

    peer: str
    reason: str
    times: int
    first_at: str
    last_at: str


@dataclass(frozen=True)
class Event:
    """A line of the device's log."""

    at: str
    level: Level
    text: str
    task_id: str | None
    series_uid: str | None
