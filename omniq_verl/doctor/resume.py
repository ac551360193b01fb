"""Find out whether a run would resume from the checkpoints in its folder, start again, or fail."""

import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.paths import home_problems
from omniq_verl.doctor.problem import Problem

_TRACKER = "latest_checkpointed_iteration.txt"
_FILES = {"model": "model", "optimizer": "optim", "extra": "extra_state"}
"""File names of the parts of a checkpoint (verl/utils/checkpoint/fsdp_checkpoint_manager.py)."""
_ANEW = "trainer.resume_mode=disable starts from the beginning"


@dataclass(frozen=True)
class Trainer:
    """The differences between verl's trainers.

    Args:
        model: key of the model that a new run starts from.
        contents: key of the checkpoint parts to load.
        sft: whether it is the SFT trainer.
        besides: text to add to the note on a run that resumes.
    """

    model: str
    contents: str
    sft: bool = False
    besides: str = ""


GRPO = Trainer(
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.actor.checkpoint.load_contents",
    besides=", which stays the reference of the KL term",
)
SFT = Trainer("model.path", "checkpoint.load_contents", sft=True)


@dataclass(frozen=True)
class Resume:
    """How verl will use the checkpoints."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    step: int = 0
    """The run resumes after this step; 0 if it starts from the beginning, or fails."""


def check_resume(config: DictConfig, trainer: Trainer, rows: int | None = None) -> Resume:
    """Ask verl which checkpoint it would load, and check that it can be loaded and leaves steps to train.

    Args:
        config: the run's configuration.
        trainer: ``GRPO`` or ``SFT``.
        rows: number of rows in all training files; None if it is unknown how many verl will use.
    """
    if problems := home_problems(config, ["trainer.default_local_dir", "trainer.resume_from_path"]):
        return Resume(problems)
    if problems := _ignored_path(config, trainer):
        return Resume(problems)
    if not _may_resume(config, trainer):
        return Resume(notes=_left_behind(config))
    try:
        found = _ask_verl(config, trainer)
    except ImportError as error:
        return Resume(notes=[f"it is not known whether the run would resume, as verl cannot be imported ({error})"])
    except Exception as error:  # any error would stop verl: AssertionError, ValueError, UnboundLocalError, ...
        return Resume([_failure(config, error)])
    if found is None:
        return Resume(notes=_left_behind(config))
    folder, step = Path(found[0]), found[1]
    if problems := _check_files(config, trainer, folder, step):
        return Resume(problems)
    return Resume([], [f"{folder}: {_continuation(config, trainer, step, rows)}"], step)


def _ask_verl(config: DictConfig, trainer: Trainer) -> tuple[str, int] | None:
    from omniq_verl.doctor import resume_verl

    return resume_verl.sft_checkpoint(config) if trainer.sft else resume_verl.grpo_checkpoint(config)


def _may_resume(config: DictConfig, trainer: Trainer) -> bool:
    """Return False if verl certainly starts from the beginning, so it need not be imported."""
    mode = OmegaConf.select(config, "trainer.resume_mode")
    if mode == "disable":
        return False
    named = trainer.sft and OmegaConf.select(config, "trainer.resume_from_path") is not None
    return mode != "auto" or named or os.path.exists(Path(config.trainer.default_local_dir) / _TRACKER)


def _ignored_path(config: DictConfig, trainer: Trainer) -> list[Problem]:
    path, mode = (OmegaConf.select(config, f"trainer.{key}") for key in ("resume_from_path", "resume_mode"))
    if path is None or mode == "resume_path" or (trainer.sft and mode == "auto"):
        return []
    what = f"verl does not read it with trainer.resume_mode={mode}"
    return [Problem(f"trainer.resume_from_path={path}", what, "set trainer.resume_mode=resume_path, or remove it")]


def _left_behind(config: DictConfig) -> list[str]:
    """Return a note on checkpoints that the run will not load."""
    folder = Path(config.trainer.default_local_dir)
    mode, path = (OmegaConf.select(config, f"trainer.{key}") for key in ("resume_mode", "resume_from_path"))
    saved, tracker = _saved_steps(folder), folder / _TRACKER
    if mode == "disable":
        why = "trainer.resume_mode is disable" if saved else None
    elif path is not None:
        why = f"verl finds no step number in trainer.resume_from_path={path}"
    elif tracker.is_file():
        why = f"{_TRACKER} names step {tracker.read_text(errors='replace').strip()}, whose folder is missing"
    else:
        why = f"there is no {_TRACKER}" if saved else None
    if why is None:
        return []
    there = f" (it holds {', '.join(f'global_step_{step}' for step in saved[-3:])})" if saved else ""
    return [f"{folder}{there}: the run will start from the beginning at step 0, as {why}"]


def _saved_steps(folder: Path) -> list[int]:
    names = [path.name.removeprefix("global_step_") for path in folder.glob("global_step_*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())


def _failure(config: DictConfig, error: Exception) -> Problem:
    mode = OmegaConf.select(config, "trainer.resume_mode")
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    if mode not in ("auto", "disable", "resume_path"):
        return Problem(f"trainer.resume_mode={mode}", "there is no such mode", "choose auto, disable or resume_path")
    named = OmegaConf.select(config, "trainer.resume_from_path")
    if mode == "resume_path" or named is not None:
        fix = f"name a folder global_step_N that exists, or {_ANEW}"
        return Problem(f"trainer.resume_from_path={named}", f"verl would stop ({message})", fix)
    tracker = Path(config.trainer.default_local_dir) / _TRACKER
    what = f"it holds no step number, and verl would stop ({message})"
    return Problem(str(tracker), what, f"write the number of the last complete global_step_N into it; {_ANEW}")


def _check_files(config: DictConfig, trainer: Trainer, folder: Path, step: int) -> list[Problem]:
    """Check that the files of every rank exist and are complete."""
    where, otherwise = f"checkpoint {folder}", f"choose another one with trainer.resume_mode=resume_path; {_ANEW}"
    if not folder.is_dir():
        return [Problem(where, "there is no such folder, and verl would stop", otherwise)]
    ranks = _world_size(config, trainer, folder)
    if problem := _other_world_size(folder, ranks, step):
        return [problem]
    parts = OmegaConf.select(config, trainer.contents) or list(_FILES)
    names = [_FILES[part] for part in parts if part in _FILES]
    here = range(ranks) if OmegaConf.select(config, "trainer.nnodes") in (None, 1) else ()  # others may be elsewhere
    files = [folder / f"{name}_world_size_{ranks}_rank_{rank}.pt" for name in names for rank in here]
    broken = [path for path in files if not zipfile.is_zipfile(path)]
    if not broken:
        return []
    matter = "is incomplete" if broken[0].is_file() else "is missing"
    return [Problem(where, f"{broken[0].name} {matter}, and verl would stop", otherwise)]


def _world_size(config: DictConfig, trainer: Trainer, folder: Path) -> int:
    settings = config.trainer
    if not trainer.sft:
        return settings.nnodes * settings.n_gpus_per_node
    saved = _saved_world_sizes(folder)
    # Processes of torchrun know the number. Otherwise only the checkpoint has it.
    return int(os.environ.get("WORLD_SIZE", saved[0] if saved else settings.get("n_gpus_per_node", 1)))


def _saved_world_sizes(folder: Path) -> list[int]:
    names = [path.name.removeprefix("model_world_size_") for path in folder.glob("model_world_size_*_rank_*.pt")]
    return sorted({int(name.partition("_")[0]) for name in names if name.partition("_")[0].isdecimal()})


def _other_world_size(folder: Path, ranks: int, step: int) -> Problem | None:
    saved = _saved_world_sizes(folder)
    if not saved or ranks in saved:
        return None
    fix = (
        f"use {saved[0]} GPUs again, or start in another folder from {folder}/huggingface, with a new optimiser, and"
        " with those weights as the reference of the KL term"
    )
    return Problem(f"checkpoint {folder}", f"step {step} was saved by {saved[0]} GPUs, and the run has {ranks}", fix)


def _continuation(config: DictConfig, trainer: Trainer, step: int, rows: int | None) -> str:
    """Say what verl does after loading the checkpoint of a step."""
    by_epochs = None if rows is None else rows // config.data.train_batch_size * config.trainer.total_epochs
    by_steps = OmegaConf.select(config, "trainer.total_training_steps")
    last = min((limit for limit in (by_epochs, by_steps) if limit is not None), default=None)
    if last is None or step < last:
        return f"the run will resume after step {step}, not from {trainer.model}{trainer.besides}"
    fix = "raise trainer.total_epochs and trainer.total_training_steps to train more"
    # verl's SFT trainer compares the step number only after training one step.
    if trainer.sft and (by_epochs is None or step < by_epochs):
        return f"its step {step} is not before the run's last, {last}: verl will train one more step and save it; {fix}"
    return f"its step {step} is not before the run's last, {last}: the run will end without training; {fix}"
