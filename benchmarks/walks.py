"""Count the files and types that three walks pass: a case to its mask, files to a model, a study to its results.

    python benchmarks/walks.py
    python benchmarks/walks.py --source /path/to/another/checkout

Each walk is a real run of its command on generated data, every process of it with a profile function
(`sys.setprofile`). A file counts if one of its functions is called, other than while a module is imported. A type
counts if an instance of that class of Focalis is an argument or a result of such a call. The study is the one of
`soak.py --studies 1`, whose own process does not count.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).parent
MODEL = "model.safetensors"
PROFILE = """
import os, sys, threading

HOME, SEEN = os.environ["WALK_HOME"], set()
PIPE = os.open(os.environ["WALK_PIPE"], os.O_WRONLY)  # children may write no files

def note(what):
    if what not in SEEN:
        SEEN.add(what)
        os.write(PIPE, (what + "\\n").encode())

def imports(frame):
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__":
            return True
        frame = frame.f_back
    return False

def look(value):
    kind = type(value)
    if str(getattr(kind, "__module__", "")).startswith("focalis."):
        note(f"type {kind.__module__}.{kind.__qualname__}")

def profile(frame, event, result):
    code = frame.f_code
    if event not in ("call", "return") or not code.co_filename.startswith(HOME) or not code.co_flags & 1:
        return
    if imports(frame):
        return
    note("file " + code.co_filename[len(HOME):])
    if event == "return":
        look(result)
    else:
        for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
            look(frame.f_locals.get(name))

if not any(word.endswith("soak.py") for word in sys.orig_argv):
    threading.setprofile(profile)
    sys.setprofile(profile)
"""
DATA = """
import sys
from pathlib import Path
from focalis.dataset import PhantomSettings, write_phantoms
write_phantoms(Path(sys.argv[1]), 6, PhantomSettings(shape_zyx=(24, 28, 32), foreground_share=0.01, lesions=1), 0)
"""


def main() -> None:
    """Walk the three ways and print how many files and types each passes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, default=HERE.parent, help="the checkout to walk through")
    parser.add_argument("--names", action="store_true", help="print the files and types too")
    given = parser.parse_args()
    source = given.source.absolute()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "sitecustomize.py").write_text(PROFILE)
        pipe = folder / "pipe"
        os.mkfifo(pipe)
        data, run = folder / "data", folder / "run"
        make = [sys.executable, "-c", DATA, str(data)]
        subprocess.run(make, check=True, env=os.environ | {"PYTHONPATH": str(source / "src")})
        focalis = [sys.executable, "-m", "focalis"]
        soak = [str(source / "benchmarks" / "soak.py"), "--studies", "1", "--senders", "1", "--fail", "0"]
        case = next((data / "images").iterdir())
        walks = {
            "files to a model": [*focalis, "fit", str(data), "-o", str(run), "--steps", "4"],
            "a case to its mask": [*focalis, "predict", str(run / MODEL), str(case), "-o", str(folder / "m")],
            "a study to its results": [sys.executable, *soak, "--out", str(folder / "soak")],
        }
        for walk, command in walks.items():
            paths = f"{folder}{os.pathsep}{source / 'src'}"
            own = {"PYTHONPATH": paths, "WALK_HOME": str(source / "src" / "focalis"), "WALK_PIPE": str(pipe)}
            seen = sorted(walked(command, pipe, os.environ | own))
            files, types = (
                [each.removeprefix(kind) for each in seen if each.startswith(kind)]
                for kind in ("file ", "type ")
            )
            print(f"{walk}: {len(files)} files, {len(types)} types")
            if given.names:
                print(*files, *types, sep="\n")


def walked(command: list[str], pipe: Path, environment: dict[str, str]) -> set[str]:
    """What all processes of a command write into the pipe."""
    found: list[str] = []
    own_end = os.open(pipe, os.O_RDWR)

    def read() -> None:
        with pipe.open() as stream:
            found.extend(line.strip() for line in stream)

    reader = threading.Thread(target=read)
    reader.start()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    os.close(own_end)  # the reader sees the end when nobody else holds the pipe
    reader.join()
    return set(found)


if __name__ == "__main__":
    main()
