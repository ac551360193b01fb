"""Kill a small reproduction at random moments, resume it, and compare it with an undisturbed one.

    python benchmarks/killed_run.py --out runs/killed --kills 5

The stages are real and small: photographs, a tiny model, verl's SFT trainer on level words (Q-Align's baseline), and
`omniq eval` with expected levels. Each kill is SIGKILL to the runner, at a moment drawn by --seed from half the time of
the undisturbed run. The script fails if weights, answers, figures or the loss of any step differ.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from omniq_verl.metric_log import read_metrics
from omniq_verl.packaged import HOME
from omniq_verl.pipeline.commands import below
from omniq_verl.pipeline.process import run_folder_lock
from omniq_verl.pipeline.runner import run_stages
from omniq_verl.pipeline.stage import Stage
from omniq_verl.pipeline.tiny_baselines import supervised
from omniq_verl.pipeline.tiny_stages import Settings, data_stage, model_stage

CROPS = {"train": 256, "sft": 64, "val": 8, "test": 64}
STEPS, SAVE_EVERY = 24, 4
NAME = "q_align"


def stages_of(root: Path) -> list[Stage]:
    """The stages of a run in the folder ``root``."""
    own = Settings(HOME, root / "small", sft_steps=STEPS, sft_save_every=SAVE_EVERY, crops=CROPS)
    return below("small", [data_stage(own), model_stage(own), *supervised(own, own, NAME)])


def run(root: Path) -> None:
    """Run or resume the stages."""
    with run_folder_lock(root):
        run_stages(stages_of(root), root, Console(), changed="stop")


def found(root: Path) -> dict[str, object]:
    """What must not depend on kills: digest of the last weights, figures, answers, and the loss of each step."""
    folder = root / "small"
    weights = folder / NAME / f"global_step_{STEPS}" / "huggingface" / "model.safetensors"
    metrics = json.loads((folder / f"{NAME}_test" / "metrics.json").read_text())
    answers = sorted(line for one in (folder / f"{NAME}_test" / "answers").glob("*.jsonl") for line in one.open())
    return {
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "figures": metrics["sets"],
        "answers": [json.loads(line)["answers"] for line in answers],
        "loss": {step: values["train/loss"] for step, values in read_metrics(folder / NAME).items()},
    }


def killed(root: Path, kills: int, longest: float, seed: int) -> None:
    """Start the run ``kills`` times and kill it, then let it end."""
    moments = random.Random(seed)
    command = [sys.executable, __file__, "--out", str(root), "--child"]
    for number in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        seconds = moments.uniform(0, longest)
        time.sleep(seconds)
        process.kill()
        process.wait()
        print(f"kill {number + 1} after {seconds:.1f} s, during {begun(root)}", flush=True)
    subprocess.run(command, check=True)


def begun(root: Path) -> str:
    """The last stage that has begun, with its newest checkpoint's step."""
    marks = sorted((root / "marks").rglob("*.json"), key=lambda path: path.stat().st_mtime)
    tracker = root / "small" / NAME / "latest_checkpointed_iteration.txt"
    step = f", checkpoint {tracker.read_text()}" if tracker.is_file() else ""
    return f"{marks[-1].stem}{step}" if marks else "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for both runs")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    out = args.out.resolve()
    if args.child:
        return run(out)
    started = time.monotonic()
    run(out / "whole")
    seconds = time.monotonic() - started
    print(f"left alone: {seconds:.0f} s", flush=True)
    killed(out / "killed", args.kills, seconds / 2, args.seed)
    whole, other = found(out / "whole"), found(out / "killed")
    differing = [name for name in whole if whole[name] != other[name]]
    print("all the same: " + ", ".join(whole) if not differing else f"different: {', '.join(differing)}")
    return sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
