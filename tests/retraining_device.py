"""A device that retrains, with a child that only pretends to; as a program it kills itself with -9 at a named point.

The child answers at once, unless a file "wait" lies in the store: then it stays in the state that stands there.
"""

import json
import os
import signal
import sys
from pathlib import Path

from focalis.device import retraining
from focalis.device.config import Config
from focalis.device.models import open_models
from focalis.device.retraining import Retrainer
from focalis.device.store import Store

CHILD = """
import json, pathlib, shutil, sys, time
job = json.loads(sys.stdin.readline())
folder = pathlib.Path(job["folder"])
store = folder.parents[1]
(store / "begun").open("a").write("x")
for state in ("exporting", "training", "judging"):
    print(json.dumps({"state": state}), flush=True)
    while (store / "wait").is_file() and (store / "wait").read_text() == state:
        time.sleep(0.02)
if (store / "fail").is_file():
    print(json.dumps({"error": (store / "fail").read_text()}), flush=True)
    sys.exit()
(folder / "run").mkdir(exist_ok=True)
shutil.copy(job["model"], folder / "run" / "model.safetensors")
figures = {"old": {"value": 0.5, "low": 0.4, "high": 0.6, "cases": 8}}
figures["new"] = {"value": 0.625, "low": 0.51, "high": 0.72, "cases": 8}
figures["difference"] = {"value": 0.125, "low": 0.02, "high": 0.23, "cases": 8}
held_out = {"cases": 8, "patients": int((store / "patients").read_text())}
judged = {"train": {"cases": 20, "patients": 15}, "held_out": held_out, "notes": []}
judged["figures"] = {name: figures for name in ("dice_with_lesion", "lesion_f1", "false_positives_per_scan")}
print(json.dumps({"judged": judged}), flush=True)
"""
COMMAND = (sys.executable, "-c", CHILD)
STUDIES = [{"case": "case_1", "files": [], "correction": "x"}]


def die_at(point):
    name, _, state = point.partition(" ")
    original = getattr(Store, name)

    def dying(self, *arguments, **options):
        if state.startswith("before") and arguments[1] == state.removeprefix("before "):
            os.kill(os.getpid(), signal.SIGKILL)
        value = original(self, *arguments, **options)
        if not state or state in arguments:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    setattr(Store, name, dying)


def main(folder, settings, point):
    retraining.COMMAND = COMMAND
    die_at(point)
    config = Config.model_validate(json.loads(settings))
    with Store(Path(folder)) as store:
        store.own()
        retrainer = Retrainer(config, store, open_models(config.models))
        retrainer.begin("tiny", STUDIES, "anna")
        while any(each.open for each in store.retrainings()):
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
