"""A PostgreSQL server of one's own to test against: Debian's, on a free port of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import peers
import psycopg

PASSWORD = "a-secret-word"
_numbers = count(1)


def programs():
    """The folder of the newest server's programs; None if none is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    folder: Path
    port: int

    def run(self, *command):
        """Run a program of the server's, not as root, which it refuses."""
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        path = programs() / command[0]
        subprocess.run([path, *command[1:]], check=True, capture_output=True, cwd="/", timeout=60, **user)

    def start(self):
        """Start it, and wait until it answers."""
        options = f"-F -p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        log = self.folder / "log"
        self.run("pg_ctl", "start", "-w", "-D", self.folder / "data", "-o", options, "-l", log)

    def stop(self, mode="fast"):
        """Stop it, whoever is connected."""
        self.run("pg_ctl", "stop", "-w", "-m", mode, "-D", self.folder / "data")

    def address(self, database):
        """The address of a database."""
        return f"postgresql://focalis:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def new_database(self):
        """The address of a new, empty database."""
        name = f"store{next(_numbers)}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.address(name)


@contextmanager
def server():
    """A server that runs until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="focalis-postgresql-"))
    made = Server(folder, peers.free_port())
    (folder / "password").write_text(PASSWORD)
    if os.geteuid() == 0:
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres", "postgres")
    try:
        login = ("-U", "focalis", "-A", "scram-sha-256", "--pwfile", folder / "password")
        made.run("initdb", "--no-sync", "-D", folder / "data", "-E", "UTF8", "--locale", "C.UTF-8", *login)
        made.start()
        try:
            yield made
        finally:
            made.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
