"""Link the model of a training run under a name that does not depend on the number of steps.

python -m omniq_verl.pipeline.checkpoint --run runs/seed0/sft --out runs/seed0/sft_model

The link is ``OUT/huggingface``. It points to the checkpoint that every command uses for a run: the one that validated
best, or the newest one if the run did not validate, as in SFT.
"""

import argparse
import os
import sys
from pathlib import Path

from omniq_verl.generation.run_folder import find_checkpoint


def link(run: Path, out: Path) -> Path:
    """Make or replace the link, and print why it leads where it does; returns it.

    Raises:
        ValueError: the run has no complete checkpoint in Hugging Face's format, or has lost its best one.
    """
    found = find_checkpoint(run)
    if found is None:
        raise ValueError(f"{run} holds no checkpoint. Fix: let its training save one (trainer.save_freq)")
    print(f"{run}: {found.why}")
    model = found.folder.absolute()
    out.mkdir(parents=True, exist_ok=True)
    unfinished = out / "huggingface.part"
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(os.path.relpath(model, out.resolve()))
    os.replace(unfinished, out / "huggingface")
    return out / "huggingface"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run (trainer.default_local_dir)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the link")
    args = parser.parse_args()
    try:
        print(f"{link(args.run, args.out)} -> {os.readlink(args.out / 'huggingface')}")
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
