"""Make the pictures of the device's page in this folder, or some, from phantoms, in Debian's Chromium.

python docs/images/device_pages.py [device-study ...]
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from phantom_device import PACS, ROUTE, PhantomDevice  # noqa: E402

from focalis.device.config import Config  # noqa: E402
from focalis.device.web.app import create_app  # noqa: E402
from focalis.device.written import BESIDE, FIGURES  # noqa: E402

ARGUMENTS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
SHAPE = {"shape_zyx": (48, 112, 112), "spacing_zyx_mm": (2.0, 1.0, 1.0), "share": 0.004}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        route = ROUTE.model_copy(update={"shadow": "nodules-2"})
        phantom = PhantomDevice(
            Path(folder), Config(destinations=(PACS,), routes=(route,), store={"least_free_gb": 0})
        )
        shown = fill(phantom)
        device = phantom.device()
        phantom.models["nodules-2"] = replace(phantom.models["nodules"], name="nodules-2")
        server = uvicorn.Server(uvicorn.Config(create_app(device), port=0, log_level="error"))
        threading.Thread(target=server.run, daemon=True).start()
        while not server.started:
            time.sleep(0.05)
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
            for scheme, name, path, prepare in (
                ("light", "device-work-list", "/", work_list),
                ("light", "device-study", f"/studies/{shown}", study),
                ("light", "device-trials", "/models", trials),
                ("dark", "device-volume", f"/studies/{shown}", volume),
            ):
                if sys.argv[1:] and name not in sys.argv[1:]:
                    continue
                context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
                context.set_default_timeout(180_000)
                page = context.new_page()
                page.goto(address + path)
                prepare(page)
                save(page.screenshot(), HERE / f"{name}.jpg")
                context.close()
            browser.close()
        server.should_exit = True
        phantom.close()


def fill(phantom: PhantomDevice) -> str:
    """Studies in every state; the id of the one to look at."""
    store = phantom.store
    uid, _ = phantom.receive("Rossi^Chiara", seed=11)
    store.set_series_state(uid, "unrouted")
    for number, (name, reason) in enumerate(
        (("Okafor^Ngozi", "2 lesions"), ("Yamada^Tarō", "1 lesion")), start=21
    ):
        task_id = phantom.study(name, seed=number, lesions=number - 19)
        store.set_task_state(task_id, "done", reason)
        (delivery,) = store.deliveries(task_id)
        store.set_delivery(task_id, delivery.sop_uid, "pacs", "sent", attempts=1)
    uid, _ = phantom.receive("Иванова^Елена", seed=31)
    store.add_task("w", uid, "nodules", "7" * 64, "8" * 64)
    store.set_task_state("w", "segmenting")
    shown = phantom.study("Lindqvist^Maja", seed=41, lesions=4, **SHAPE)
    store.set_task_state(shown, "done", "4 lesions")
    store.review(shown, [1], "accepted", "local")
    store.review(shown, [3], "rejected", "local")
    put_on_trial(phantom)
    retrain(phantom)
    phantom.receive("Haddad^Samir", seed=51, complete=False)
    return shown


def put_on_trial(phantom: PhantomDevice) -> None:
    """Have a second model's findings beside those of every study that is done, and figures of the images."""
    store = phantom.store
    for number, task in enumerate(store.tasks("done")):
        for copy in range(4):
            task_id = f"{task.task_id}-{copy}"
            store.add_task(
                task_id, task.series_uid, "nodules-2", "8" * 64, task.input_sha256, shadow_of=task.task_id
            )
            store.set_task_state(task_id, "done")
            folder = store.results_folder(task_id)
            folder.mkdir(parents=True)
            pairs = [[1, 1], [2, 2], [3, 3]][: 1 + (number + copy) % 3]
            note = {"current": len(pairs) + copy % 2, "shadow": len(pairs) + number % 2, "pairs": pairs}
            (folder / BESIDE).write_text(json.dumps({**note, "dice": 0.81}))
            figures = {"spacing 0": 0.12, "extent 2": -0.31, "intensity 0 1": 0.78 + copy / 10}
            (folder / FIGURES).write_text(json.dumps(figures))


def retrain(phantom: PhantomDevice) -> None:
    """A model that was retrained and judged, and one that is being trained."""
    store = phantom.store

    def figure(*rows: tuple[float, float, float]) -> dict[str, dict[str, float]]:
        of = ("old", "new", "difference")
        return {
            name: {"value": value, "low": low, "high": high}
            for name, (value, low, high) in zip(of, rows, strict=True)
        }

    store.begin_retraining("nodules", "nodules", "anna")
    judged = {
        "train": {"cases": 64, "patients": 51},
        "held_out": {"cases": 27, "patients": 22},
        "figures": {
            "dice_with_lesion": figure((0.71, 0.66, 0.76), (0.75, 0.70, 0.79), (0.04, 0.01, 0.07)),
            "lesion_f1": figure((0.78, 0.70, 0.85), (0.82, 0.75, 0.89), (0.04, -0.01, 0.09)),
            "false_positives_per_scan": figure((1.2, 0.8, 1.7), (0.9, 0.5, 1.3), (-0.3, -0.7, 0.0)),
        },
        "notes": [],
    }
    store.set_retraining(1, "done", sha256="9" * 64, judged=judged)
    store.begin_retraining("nodules", "nodules", "anna")
    store.set_retraining(2, "training")


def trials(page: Page) -> None:
    page.get_by_text("On trial").first.wait_for()


def work_list(page: Page) -> None:
    page.get_by_text("Lindqvist, Maja").wait_for()


def study(page: Page) -> None:
    page.wait_for_selector(".plane[data-shown] >> nth=2")
    page.click("tr[data-lesion='2'] td:nth-child(2)")
    page.keyboard.press("g")
    page.get_by_text("Lesion 2 grown").wait_for()
    page.keyboard.press("+")
    page.wait_for_selector(".plane[data-waiting]", state="detached")
    page.wait_for_timeout(1000)


def volume(page: Page) -> None:
    page.wait_for_selector(".plane[data-shown] >> nth=2")
    page.click("#show-volume")
    page.wait_for_selector("#volume[data-ready]")
    page.wait_for_timeout(4000)


def save(png: bytes, path: Path) -> None:
    """Smaller, so that the repository stays small."""
    picture = Image.open(io.BytesIO(png)).convert("RGB").resize((1120, 700), Image.Resampling.LANCZOS)
    picture.save(path, quality=86, optimize=True)


if __name__ == "__main__":
    main()
