"""`focalis serve`: the segmentation device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from focalis.models import SHIPPED


def serve(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL",
            help=f"A model file, or a shipped model: {', '.join(SHIPPED)}. For several models use --config.",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings of the site, focalis.toml.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder for studies and results; default focalis-device.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the DICOM node; default 11112.")
    ] = None,
    web_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the web page; default 8080.")
    ] = None,
    worker: Annotated[
        bool,
        typer.Option("--worker", help="Only segment, for the device whose database --config names as well."),
    ] = False,
    backup: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Back up the whole store to FILE, and stop.")
    ] = None,
    restore: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Restore the store from a backup, and stop.")
    ] = None,
    hash_password: Annotated[
        bool,
        typer.Option(
            "--hash-password",
            help="Ask for a password, print its hash for the users of focalis.toml, and stop.",
        ),
    ] = False,
) -> None:
    """Run the segmentation device: receive DICOM images, segment them, send results on, show them on a web page.

    It listens on this machine only, unless the configuration says otherwise. For research use only.
    """
    from focalis.errors import UsageError

    if worker and (port is not None or web_port is not None):
        raise UsageError("--worker listens on no port; leave --port and --web-port out")
    if backup is not None and restore is not None:
        raise UsageError("--backup and --restore exclude each other; give one")
    if backup is not None or restore is not None:
        _back_up_or_restore(config, folder, backup, restore)
        return
    if hash_password:
        from focalis.device.web.auth import hash_password as run_hash

        print(run_hash(typer.prompt("password", hide_input=True, confirmation_prompt=True, err=True)))
        return
    try:
        from focalis.device.serve import serve as run_serve
        from focalis.device.serve import settings_for
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed; install the device's parts: pip install '.[device]' in Focalis's folder"
        ) from error

    settings = settings_for(model, config, folder, port, web_port)
    run_serve(settings, lambda line: print(line, flush=True), worker)


def _back_up_or_restore(
    config: Path | None, folder: Path | None, backup: Path | None, restore: Path | None
) -> None:
    from focalis.device.backup import back_up
    from focalis.device.backup import restore as run_restore
    from focalis.device.config import load_config
    from focalis.errors import UsageError

    settings = load_config(config).store
    if settings.objects:
        raise UsageError.at(
            settings.objects,
            "--backup and --restore do not reach the objects there",
            "dump the database with pg_dump, then copy the bucket",
        )
    store = folder or settings.folder
    if backup is not None:
        print(f"{back_up(store, backup, settings.database)} files of {store} in {backup}")
    elif restore is not None:
        print(f"{run_restore(restore, store, settings.database)} files from {restore} in {store}")
