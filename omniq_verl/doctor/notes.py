"""Warnings that do not stop a run."""

from collections.abc import Sequence

from omniq_verl.doctor.data_files import FileReport
from omniq_verl.trainer.best_checkpoint import OFF


def same_rows(train: Sequence[FileReport], val: Sequence[FileReport]) -> list[str]:
    """Warn about rows that occur twice in the training files, or also in the validation files."""
    known: set[int] = set()
    twice = 0
    for file in train:
        twice += len(known & file.keys)
        known |= file.keys
    both = len(known & set().union(*(file.keys for file in val)))
    notes = [f"{twice:,} rows appear in more than one of data.train_files"] if twice else []
    if both:
        what = "also appear in data.train_files; validation scores on them reflect memorisation"
        notes.append(f"{both:,} rows of data.val_files {what}")
    return notes


def dropped_rows(files: Sequence[FileReport]) -> list[str]:
    """Warn about rows that verl drops because they are too long for ``data.max_prompt_length``."""
    return [
        f"{file.path}: verl will drop {file.dropped:,} of {file.rows:,} rows, whose prompts are longer than"
        " data.max_prompt_length (data.filter_overlong_prompts)"
        for file in files
        if file.dropped
    ]


def unsaved_validations(saves: int, tests: int, keep_best: str) -> list[str]:
    """Warn about validated steps that have no checkpoint to keep.

    Args:
        saves, tests: steps between two checkpoints and between two validations; 0 or less: none.
        keep_best: ``trainer.v1.keep_best``.
    """
    if keep_best == OFF or saves <= 0 or tests <= 0 or tests % saves == 0:
        return []
    return [
        f"steps are validated every {tests} and saved every {saves}: the best checkpoint is chosen among those that are"
        " both; trainer.test_freq should be a multiple of trainer.save_freq"
    ]
