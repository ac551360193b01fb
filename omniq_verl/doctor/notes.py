"""What is no mistake, and should be known before a run begins."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.data_files import FileReport


def same_rows(train: Sequence[FileReport], val: Sequence[FileReport]) -> list[str]:
    """Rows that stand twice among the training files, or are validated on as well."""
    known: set[int] = set()
    twice = 0
    for file in train:
        twice += len(known & file.keys)
        known |= file.keys
    both = len(known & set().union(*(file.keys for file in val)))
    notes = [f"{twice:,} rows stand in more than one of data.train_files"] if twice else []
    return notes + ([f"{both:,} rows of data.val_files are trained on, too: they measure memory"] if both else [])


def step_of(config: DictConfig) -> str | None:
    """The step a run would go on from, as verl wrote it down; None: it begins anew."""
    tracker = Path(config.trainer.default_local_dir) / "latest_checkpointed_iteration.txt"
    if OmegaConf.select(config, "trainer.resume_mode") != "auto" or not tracker.is_file():
        return None
    return tracker.read_text(errors="replace").strip()[:20]


def resumed(config: DictConfig, key: str, besides: str = "") -> list[str]:
    """A folder with checkpoints is gone on with, whatever model ``key`` names."""
    step, folder = step_of(config), config.trainer.default_local_dir
    return [] if step is None else [f"{folder} holds step {step}: the run goes on from there, not from {key}{besides}"]
