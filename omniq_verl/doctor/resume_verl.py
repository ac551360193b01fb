"""Find the checkpoint that verl would load: run verl's own code and stop it right before loading.

Importing this module takes seconds because it imports verl's trainers.
"""

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from types import SimpleNamespace
from typing import Any

from omegaconf import DictConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings about engines of other vendors that are not installed
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer
    from verl.utils.checkpoint.checkpoint_handler import CheckpointHandler, OrchestrationMode


class _Found(Exception):
    """Carries the folder out of verl's code."""


class _Engine:
    def load_checkpoint(self, local_path: str, **_: Any) -> None:
        raise _Found(local_path)


def grpo_checkpoint(config: DictConfig) -> tuple[str, int] | None:
    """Return the folder of the actor's files and the step that a GRPO run would load; None if it would start again.

    Raises:
        Exception: any error that would stop verl.
    """
    trainer = SimpleNamespace(config=config, actor_rollout_wg=_Engine())
    folder = _stopped(lambda: PPOTrainer._load_checkpoint(trainer))  # pyright: ignore[reportArgumentType]  has all it reads
    return None if folder is None else (folder, trainer.global_steps)


def sft_checkpoint(config: DictConfig) -> tuple[str, int] | None:
    """Like ``grpo_checkpoint``, for a run of verl's SFT trainer."""
    settings = config.trainer
    handler = CheckpointHandler(
        engine=_Engine(),  # pyright: ignore[reportArgumentType]  has all that is called
        train_dataloader=None,
        default_local_dir=settings.default_local_dir,
        resume_mode=getattr(settings, "resume_mode", "auto"),
        resume_from_path=getattr(settings, "resume_from_path", None),
        mode=OrchestrationMode.RAY,  # the other one asks torch.distributed for the rank
    )
    folder = _stopped(handler.load_checkpoint)
    return None if folder is None else (folder, handler.resume_global_step)


def _stopped(load: Callable[[], Any]) -> str | None:
    try:
        with redirect_stdout(io.StringIO()):
            load()
    except _Found as found:
        return found.args[0]
    return None
