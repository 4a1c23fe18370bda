"""The part of benchmarks/nnunet.py that runs in nnU-Net's own environment, without Focalis.

python benchmarks/nnunet_inside.py train TASK.json
python benchmarks/nnunet_inside.py predict TASK.json
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

POWER = 0.9
"""Of nnU-Net's polynomial decay of the learning rate."""


def main() -> None:
    """Do one stage, unless its result is there."""
    stage, path = sys.argv[1], Path(sys.argv[2])
    task = json.loads(path.read_text(encoding="utf-8"))
    work = Path(task["work"])
    result = work / {"train": "trained.json", "predict": "predicted.json"}[stage]
    if result.exists():
        return
    torch.set_num_threads(task["threads"])
    np.random.seed(task["seed"])  # noqa: NPY002 nnU-Net draws from the global state
    torch.manual_seed(task["seed"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = get_trainer_from_args(str(task["number"]), "3d_fullres", 0, "nnUNetTrainer", device=device)
    found = (
        train(trainer, 60 * task["minutes"]) if stage == "train" else predict(trainer, task["jobs"], device)
    )
    result.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def train(trainer: nnUNetTrainer, budget_s: float) -> dict[str, Any]:
    """nnU-Net's own training steps until the time is over; the checkpoint is saved as its trainer does."""
    trainer.on_train_start()
    trainer.network.train()
    iterations, losses, workers = 0, [], 0.0
    begin = time.monotonic()
    while (elapsed := time.monotonic() - begin) < budget_s:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - elapsed / budget_s) ** POWER
        losses.append(float(trainer.train_step(next(trainer.dataloader_train))["loss"]))
        iterations += 1
        workers = max(workers, workers_gb())
        print(f"iteration {iterations}, {elapsed:.0f} of {budget_s:.0f} s, loss {losses[-1]:.4f}", flush=True)
    seconds = time.monotonic() - begin
    trainer.current_epoch = 1  # the checkpoint names the epoch before the current one
    trainer.on_train_end()
    plan = trainer.configuration_manager
    return {
        "iterations": iterations,
        "training_seconds": round(seconds, 1),
        "parameters": sum(parameter.numel() for parameter in trainer.network.parameters()),
        "patch_zyx": [int(size) for size in plan.patch_size],
        "batch": int(plan.batch_size),
        "last_losses": losses[-10:],
        "training_memory_gb": round(peak_memory_gb() + workers, 3),
    }


def predict(trainer: nnUNetTrainer, jobs: list[dict[str, str]], device: torch.device) -> dict[str, Any]:
    """Predict each image with nnU-Net's sliding window, plain and with its mirroring.

    Seconds per case are the mean, as for runs of Focalis, per window the median, as in comparison.py.
    """
    trainer.initialize()
    trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    seconds: dict[str, list[float]] = {"plain": [], "mirrored": []}
    for kind in seconds:
        predictor = nnUNetPredictor(
            use_mirroring=kind == "mirrored",
            perform_everything_on_device=True,
            device=device,
            allow_tqdm=False,
        )
        predictor.manual_initialization(
            trainer.network,
            trainer.plans_manager,
            trainer.configuration_manager,
            [trainer.network.state_dict()],
            trainer.dataset_json,
            "nnUNetTrainer",
            trainer.inference_allowed_mirroring_axes,
        )
        for job in jobs:
            image = sitk.ReadImage(job["image"])
            array = sitk.GetArrayFromImage(image).astype(np.float32)[None]
            begin = time.perf_counter()
            label = predictor.predict_single_npy_array(array, {"spacing": list(image.GetSpacing())[::-1]})
            seconds[kind].append(time.perf_counter() - begin)
            answer = sitk.GetImageFromArray(label.astype(np.uint8))
            answer.CopyInformation(image)
            Path(job[kind]).parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(answer, job[kind])
    return {
        "seconds_per_predicted_case": float(np.mean(seconds["plain"])),
        "seconds_per_window": float(np.median(seconds["plain"])),
        "seconds_mirrored": float(np.mean(seconds["mirrored"])),
        "threads_in_prediction": torch.get_num_threads(),
        "peak_memory_gb": peak_memory_gb(),
    }


def workers_gb() -> float:
    """Memory of the processes that prepare the patches, on Linux; pages that several share count once."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid():
                lines = (process / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue  # it ended meanwhile
    return total * 1024 / 1e9


def peak_memory_gb() -> float:
    """The largest resident memory of this process, on Linux."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e9, 3)
    return float("nan")


if __name__ == "__main__":
    main()
