"""Train a model on with the reviewers' corrections, in a child process, across stops of the device."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from focalis.children import Child, LostError
from focalis.device.config import Config, ModelEntry, Route
from focalis.device.models import ServedModel, open_models
from focalis.device.records import Retraining, Roles
from focalis.device.retrain import MODEL, RUN, RetrainJob
from focalis.device.routing import effective_routes
from focalis.device.store import Store
from focalis.errors import FocalisError, UsageError
from focalis.files import sha256_of, whole_file, write_text

COMMAND = (sys.executable, "-m", "focalis.device.retrain")
_JOB = "job.json"
_log = logging.getLogger(__name__)


def retrained_models(store: Store, routes: Sequence[Route]) -> tuple[ModelEntry, ...]:
    """The retrained models that the routes lead to, by what was decided on the page."""
    used = {
        name for route in effective_routes(routes, store.roles()) for name in (*route.models, route.shadow)
    }
    return tuple(
        ModelEntry(name=each.name, file=store.model_path(each.name), sha256=each.sha256)
        for each in store.retrainings()
        if each.name in used and each.state == "done"
    )


def lineage_of(model: str, retrainings: Sequence[Retraining]) -> list[str]:
    """A model and those that it descends from, the latest first."""
    parents = {each.name: each.model for each in retrainings}
    found = [model]
    while found[-1] in parents:
        found.append(parents[found[-1]])
    return found


class Retrainer:
    """Retrains models, one at a time."""

    def __init__(self, config: Config, store: Store, models: dict[str, ServedModel]) -> None:
        """Does not start anything yet.

        Args:
            config: the device's settings.
            store: the store, owned by this process.
            models: the device's models by name; a model that is put on trial is added.
        """
        self._config, self._store, self._models = config, store, models
        self._stopping = False
        self._child: Child | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Go on with what a stop interrupted."""
        for each in self._store.retrainings():
            if each.open:
                self._store.event("info", f"goes on with {each.name}, which a stop interrupted")
                self._run(each)
        self._remove_leftovers()

    def stop(self) -> None:
        """Stop at once; the next start goes on."""
        self._stopping = True
        self._end_child()

    def begin(self, model: str, studies: Sequence[dict[str, Any]], who: str) -> Retraining:
        """Begin to train a model on with reviewed studies.

        Raises:
            UsageError: it cannot be, or another one is under way.
        """
        if self._store.in_bucket:
            raise UsageError(
                "models are not retrained here while store.objects is set: export the corrections, and run focalis fit"
            )
        header = self._models[model].header
        if header.guided:
            raise UsageError(
                f"{model} takes points, so its successor is trained on crops around lesions: export the corrections, "
                "and run focalis fit"
            )
        if not studies:
            raise UsageError(
                f"no study of {model} has been reviewed; judge lesions and send the corrections first"
            )
        base = lineage_of(model, self._store.retrainings())[-1]
        found = self._store.begin_retraining(model, base, who)
        if found is None:
            raise UsageError("a model is being retrained; wait for it, or cancel it")
        limits = self._config.retrain
        job = RetrainJob(
            str(self._folder(found)),
            list(studies),
            str(self._models[model].file),
            limits.minutes,
            0.8 * limits.memory_gb,
            limits.threads,
        )
        try:
            self._folder(found).mkdir(parents=True, exist_ok=True)
            write_text(self._folder(found) / _JOB, json.dumps(asdict(job)))
        except (FocalisError, OSError) as error:
            self._end(found, str(error))
            raise
        self._run(found)
        return found

    def cancel(self) -> Retraining | None:
        """End what is under way, if anything is."""
        found = next((each for each in self._store.retrainings() if each.open), None)
        if found is not None and self._store.set_retraining(found.number, "cancelled"):
            self._end_child()
            return found
        return None

    def put_on_trial(self, number: int, who: str) -> Retraining:
        """Have a new model segment beside the one that it started from; its results are kept and not sent.

        Raises:
            UsageError: it was not judged, on too few patients, or there is no such route.
            ModelError: its file was changed.
        """
        found = next((each for each in self._store.retrainings() if each.number == number), None)
        if found is None or found.state != "done":
            raise UsageError("there is no such new model that was judged")
        if fault := self.too_few(found):
            raise UsageError(fault)
        wanted = []
        for route in self._config.routes:
            (now,) = effective_routes([route], self._store.roles())
            if now.models == (found.model,):
                wanted.append(Roles(route.models[0], found.model, found.name, route.shadow or ""))
        if (
            found.name in self._models
            and self._models[found.name].header.identity.file_sha256 != found.sha256
        ):
            raise UsageError(
                f"another model is called {found.name}; give that one another name in focalis.toml"
            )
        if not wanted:
            raise UsageError(f"no route of focalis.toml leads to {found.model} alone; a trial needs one")
        entry = ModelEntry(name=found.name, file=self._store.model_path(found.name), sha256=found.sha256)
        self._models.update(open_models([entry]))
        for roles in wanted:
            self._store.set_roles(roles, who)
        return found

    def too_few(self, found: Retraining) -> str:
        """Why the figures of a new model say too little to try it; empty if they do not."""
        held_out = found.judged.get("held_out", {}).get("patients", 0)
        least = self._config.retrain.least_held_out
        if held_out >= least:
            return ""
        return (
            f"judged on {held_out} held-out patients, and {least} are needed; review studies of more patients"
        )

    def _folder(self, each: Retraining) -> Path:
        return self._store.folder / "retraining" / str(each.number)

    def _run(self, each: Retraining) -> None:
        self._thread = threading.Thread(
            target=self._work, args=(each,), name="focalis-retraining", daemon=True
        )
        self._thread.start()

    def _work(self, each: Retraining) -> None:
        try:
            self._outcome(each, self._ask(each))
            if not self._stopping:
                self._remove_leftovers()
        except (FocalisError, OSError) as error:  # a full disk, above all
            _log.error("retraining: %s", error)
            if not self._stopping:
                with suppress(FocalisError):  # the next start goes on
                    self._end(each, str(error))
                    self._remove_leftovers()

    def _ask(self, each: Retraining) -> dict[str, Any]:
        limits, path = self._config.retrain, self._folder(each) / _JOB
        if not path.is_file():
            return {"error": "was interrupted before it began; begin it again"}
        deadline = time.monotonic() + 3600 * limits.hours
        self._child = child = Child(COMMAND)
        try:
            if self._stopping:
                return {}
            child.send(json.loads(path.read_text(encoding="utf-8")))
            while True:
                answer = child.receive(deadline - time.monotonic(), limits.memory_gb * 1e9)
                if "state" not in answer:
                    return answer
                if not self._store.set_retraining(each.number, answer["state"]):
                    return {"error": "was cancelled"}
        except LostError as error:
            told = {
                "large": f"took more than {limits.memory_gb:g} GB of memory; raise retrain.memory_gb",
                "late": f"took longer than {limits.hours:g} hours; raise retrain.hours",
            }
            return {"error": told.get(error.why) or child.ending()}
        finally:
            child.stop()

    def _outcome(self, each: Retraining, answer: dict[str, Any]) -> None:
        if self._stopping:
            return
        if "judged" not in answer:
            self._end(each, answer["error"])
            return
        path = self._store.model_path(each.name)
        path.parent.mkdir(exist_ok=True)
        with whole_file(path) as temporary:
            shutil.copyfile(self._folder(each) / RUN / MODEL, temporary)
        did = f"retrained {each.model} as {each.name}, and judged both"
        told = {"sha256": sha256_of(path), "judged": answer["judged"], "did": did}
        if self._store.set_retraining(each.number, "done", **told):
            self._store.event("info", f"{each.name} was trained and judged")

    def _end(self, each: Retraining, reason: str) -> None:
        did = f"could not retrain {each.model}: {reason}"
        if self._store.set_retraining(each.number, "failed", reason, did=did):
            self._store.event("error", f"retraining {each.model} failed: {reason}")

    def _end_child(self) -> None:
        child, thread = self._child, self._thread
        if child is not None:
            child.kill()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _remove_leftovers(self) -> None:
        """Remove what ended retrainings have left: it holds images."""
        folders = list((self._store.folder / "retraining").glob("*"))  # first: one may begin meanwhile
        kept = {str(each.number) for each in self._store.retrainings() if each.open}
        for folder in folders:
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)
