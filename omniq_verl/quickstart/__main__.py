"""python -m omniq_verl.quickstart [--out runs/quickstart] [--seed 0]"""

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console

from omniq_verl.data.files import replace_text
from omniq_verl.packaged import HOME
from omniq_verl.pipeline.process import StageFailed, run_folder_lock
from omniq_verl.pipeline.runner import run_stages
from omniq_verl.pipeline.stage import PlanError
from omniq_verl.pipeline.tiny_stages import Settings, build_stages
from omniq_verl.quickstart.report import draw_curves, print_table, summary


def main() -> None:
    settings = Settings(**vars(_arguments()))
    console = Console()
    started = time.monotonic()
    try:
        with run_folder_lock(settings.root):
            run_stages(build_stages(settings), settings.root, console)
            _finish(settings, console)
    except (StageFailed, PlanError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command resumes from here")
    console.print(f"{(time.monotonic() - started) / 60:.1f} minutes")


def _finish(settings: Settings, console: Console) -> None:
    figures = summary(settings)
    replace_text(settings.root / "report.json", json.dumps(figures, indent=2) + "\n")
    draw_curves(settings.root / "grpo", settings.root / "curves.png")
    print_table(figures, console)
    for title, path in {
        "figures": settings.root / "report.json",
        "plot": settings.root / "curves.png",
        "model": settings.grpo_model,
    }.items():
        console.print(f"{title}: {path}", soft_wrap=True)


def _arguments() -> argparse.Namespace:
    defaults = Settings(repo=HOME, root=Path("runs/quickstart"))
    parser = argparse.ArgumentParser(prog="python -m omniq_verl.quickstart", description=_DESCRIPTION)
    add = parser.add_argument
    add(
        "--out",
        dest="root",
        type=_absolute,
        default=_absolute(defaults.root),
        help="run folder; an interrupted run is resumed",
    )
    add("--repo", type=_absolute, default=defaults.repo, help="folder with recipes/ and data_prep/ (default: our own)")
    add("--seed", type=int, default=defaults.seed, help="seed of data, weights, order and sampling")
    add("--sft-steps", type=int, default=defaults.sft_steps)
    add("--grpo-steps", type=int, default=defaults.grpo_steps)
    add("--sft-save-every", type=int, default=defaults.sft_save_every, help="steps between checkpoints")
    add("--grpo-save-every", type=int, default=defaults.grpo_save_every, help="steps between checkpoints")
    add("--samples", type=int, default=defaults.samples, help="answers per held-out image at temperature 1")
    add("--crops", type=json.loads, default={}, help='rows per file, e.g. \'{"sft": 64, "train": 32}\'')
    return parser.parse_args()


def _absolute(path: str | Path) -> Path:
    return Path(path).resolve()


_DESCRIPTION = "Photographs, a tiny Qwen2.5-VL, SFT, GRPO with vLLM rollouts, and an evaluation, on a CPU."

if __name__ == "__main__":
    main()
