"""Starts the device: store, intake, jobs, DICOM node, watched folder and web page in one process."""

from __future__ import annotations

import ipaddress
import logging
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from focalis import __version__
from focalis.device.certificates import check_client_files
from focalis.device.config import Config, ModelEntry, load_config
from focalis.device.intake import Intake
from focalis.device.jobs import Jobs
from focalis.device.models import open_models
from focalis.device.node import Node
from focalis.device.retraining import Retrainer, retrained_models
from focalis.device.routing import check_routes
from focalis.device.store import Store
from focalis.device.watch import Watcher
from focalis.device.web.app import create_app
from focalis.device.web.device import Device
from focalis.device.web.server import WebServer
from focalis.errors import FocalisError, UsageError
from focalis.models import card_line, card_of, model_file


@dataclass(frozen=True)
class Running:
    """A device at work.

    Attributes:
        wrong: what ended the device by itself; empty while all is well.
    """

    config: Config
    store: Store
    jobs: Jobs
    dicom_port: int
    web_url: str
    wrong: Callable[[], str]


def settings_for(
    model: Path | None, config: Path | None, folder: Path | None, port: int | None, web_port: int | None
) -> Config:
    """The settings of a configuration file with what the command line says in their place.

    Args:
        model: a model file, added under the name of its stem, or one that comes with Focalis, by its name.

    Raises:
        UsageError: the file cannot be used, or is at odds with the command line.
    """
    found = load_config(config)
    if model is not None:
        if any(entry.name == model.stem for entry in found.models):
            raise UsageError.at(config, f"has a model {model.stem!r} already", "name it there or here")
        try:
            entry = ModelEntry(name=model.stem, file=model_file(model).absolute())
        except ValueError as error:
            raise UsageError.at(
                model, "give the file a name of letters, digits, dot, dash and underscore, up to 64"
            ) from error
        found = found.model_copy(update={"models": (entry, *found.models)})
    if folder is not None:
        found = found.model_copy(update={"store": found.store.model_copy(update={"folder": folder})})
    if port is not None:
        found = found.model_copy(update={"node": found.node.model_copy(update={"port": port})})
    if web_port is not None:
        found = found.model_copy(update={"web": found.web.model_copy(update={"port": web_port})})
    if not found.users and not _is_loopback(found.web.host):
        raise UsageError(
            f"web.host is {found.web.host}, and there are no [[users]]: anybody could look at the patients; "
            "add users, or leave web.host at 127.0.0.1"
        )
    return found


@contextmanager
def running(config: Config) -> Iterator[Running]:
    """Start a device; it stops when the context ends.

    Stopping waits for nothing but the object that is being received: work under way is done again after the next start.

    Raises:
        FocalisError: a model, the store, a certificate or a port cannot be used; nothing stays started.
    """
    check_client_files(config)
    models = open_models(config.models)
    check_routes(config.routes, models)
    with ExitStack() as stack:
        place = config.store
        store = stack.enter_context(Store(place.folder, place.database, place.objects))
        store.own()
        if made := retrained_models(store, config.routes):
            models |= open_models([*config.models, *made])
        intake = Intake(store, config)
        stack.callback(intake.close)
        jobs = Jobs(config, store, models, __version__)
        stack.callback(jobs.stop)
        jobs.start()
        retrainer = Retrainer(config, store, models)
        stack.callback(retrainer.stop)
        retrainer.start()
        commits = any(each.commit for each in config.destinations)
        node = Node(config, intake, jobs.commitments.on_report if commits else None)

        def unready() -> list[str]:
            lost = any(not model.file.is_file() for model in models.values())
            away = "object store" if store.objects_problem() else ""
            found = (
                jobs.problem(),
                "" if node.listening else "DICOM node",
                "model file" if lost else "",
                away,
            )
            return [each for each in found if each]

        device = Device(
            config=config,
            store=store,
            intake=intake,
            models=models,
            version=__version__,
            resend=jobs.resend,
            retry=jobs.retry,
            point=jobs.point,
            mask=jobs.mask,
            deliver=lambda _task_id: jobs.wake(),
            unready=unready,
            retrainer=retrainer,
        )
        web = WebServer(create_app(device), config.web)
        stack.callback(web.stop)
        web.start()
        stack.callback(node.stop)
        node.start()
        if config.watch.folder is not None:
            watcher = Watcher(config.watch, intake)
            stack.callback(watcher.stop)
            watcher.start()
        store.event("info", f"the device started, Focalis {__version__}")
        yield Running(config, store, jobs, node.port, web.url, web.wrong)
        store.event("info", "the device stops")


@contextmanager
def working(config: Config) -> Iterator[Jobs]:
    """Start a worker, which takes only studies; it stops when the context ends, and others take what was under way.

    Raises:
        FocalisError: there is no database to share, a model or the database cannot be used.
    """
    if config.store.database is None:
        raise UsageError('--worker needs a database to share; add [store] database = "postgresql://..."')
    models = open_models(config.models)
    check_routes(config.routes, models)
    name = f"worker {socket.gethostname()} {secrets.token_hex(4)}"
    with Store(config.store.folder, config.store.database, config.store.objects) as store:
        store.join(name)
        jobs = Jobs(config, store, models, __version__, name)
        try:
            jobs.start()
            yield jobs
        finally:
            jobs.stop()


def serve(config: Config, say: Callable[[str], None], worker: bool = False) -> None:
    """Run a device, or a worker of one, until SIGTERM or SIGINT.

    Args:
        say: told, a line each, where it listens and that it stops.

    Raises:
        FocalisError: it cannot start, or its web server ended by itself.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    def wait(wrong: Callable[[], str]) -> None:
        say("ready; stop with Ctrl-C or SIGTERM. For research use only.")
        while not stop.wait(0.5):
            if fault := wrong():
                raise FocalisError(fault)
        say("stopping; what is under way goes on after the next start")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        say(f"store   {config.store.folder.absolute()}")
        if config.store.objects:
            say(f"objects {config.store.objects}")
        if worker:
            with working(config) as jobs:
                say(f"models  {', '.join(jobs.models)}")
                wait(lambda: "")
            return
        with running(config) as device:
            say(f"models  {', '.join(device.jobs.models)}")
            for model in device.jobs.models.values():
                if card := card_of(model.file):
                    say(f"card    {card_line(card)}")
            say(f"DICOM   {config.node.ae_title} at {config.node.host}:{device.dicom_port}")
            say(f"web     {device.web_url}")
            wait(device.wrong)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
