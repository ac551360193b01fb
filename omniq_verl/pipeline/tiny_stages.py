"""Stages of tiny models on two CPU cores: those of the quickstart, and what the tiny tables are made of."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omniq_verl.pipeline.commands import ALONE, flags, module, omniq, recipe_words
from omniq_verl.pipeline.stage import Stage

EVAL_SAMPLES = 4
"""Answers per held-out image, also for training samples: a few steps rarely change the most likely answer."""


@dataclass(frozen=True)
class Settings:
    """Settings of a run. The defaults are those of the README's figures; tests use smaller ones."""

    repo: Path
    """The folder with ``recipes`` and ``data_prep``, e.g. ``omniq_verl.packaged.HOME``."""
    root: Path
    """The run folder."""
    seed: int = 0
    """Seed of data, weights, order and sampling."""
    sft_steps: int = 350
    grpo_steps: int = 20
    sft_save_every: int = 50
    """Steps between checkpoints; a kill loses at most this many."""
    grpo_save_every: int = 5
    samples: int = 8
    """Answers per held-out image at temperature 1, before and after GRPO."""
    crops: dict[str, int] = field(default_factory=dict)
    """Crops per file, if they differ from data_prep/photo_distortions.py."""

    @property
    def sft_model(self) -> Path:
        return self.root / "sft" / f"global_step_{self.sft_steps}" / "huggingface"

    @property
    def grpo_model(self) -> Path:
        return self.trained("grpo")

    def trained(self, name: str, times: int = 1) -> Path:
        """The model of the GRPO run in the folder ``name``, after ``times`` its usual number of steps."""
        return self.root / name / f"global_step_{times * self.grpo_steps}" / "actor" / "huggingface"


def build_stages(settings: Settings) -> list[Stage]:
    """All stages in order."""
    return [
        *cold_start(settings),
        measure_stage(settings, "before", "held-out answers after SFT", settings.sft_model),
        _grpo(settings),
        measure_stage(settings, "after", "held-out answers after GRPO", settings.grpo_model),
    ]


def cold_start(settings: Settings) -> list[Stage]:
    """Data, a model with random weights, and SFT."""
    data = settings.root / "data" / "sft.parquet"
    title, model = "cold start with verl's SFT trainer", settings.root / "model"
    sft = sft_stage(settings, "sft", title, "quickstart/sft", model, data, settings.sft_steps)
    return [data_stage(settings), model_stage(settings), sft]


def data_stage(settings: Settings) -> Stage:
    """The stage that makes the photographs' crops, in the run's folder ``data``."""
    script = settings.repo / "data_prep" / "photo_distortions.py"
    sizes = [word for split, count in settings.crops.items() for word in (f"--{split}", str(count))]
    arguments = ["--out", str(settings.root / "data"), "--seed", str(settings.seed), *sizes]
    return Stage("data", "photographs -> parquet", [sys.executable, str(script), *arguments])


def model_stage(settings: Settings, after: tuple[str, ...] = (), **more: Any) -> Stage:
    """A model with random weights, in the folder ``model`` of the run; ``more`` are flags of ``make_model``."""
    arguments = flags(data=settings.root / "data", out=settings.root / "model", seed=settings.seed, **more)
    command = module("omniq_verl.quickstart.make_model", arguments)
    return Stage("model", "tiny Qwen2.5-VL with random weights", command, after=after)


def sft_stage(
    settings: Settings, name: str, title: str, recipe: str, model: Path, data: Path, steps: int, **overrides: Any
) -> Stage:
    """Supervised training with ``recipe`` from ``model``, in the run's folder ``name``."""
    own = {
        "model.path": model,
        "data.train_files": data,
        "trainer.default_local_dir": settings.root / name,
        "trainer.total_training_steps": steps,
        "trainer.save_freq": settings.sft_save_every,
    }
    command = module("verl.trainer.sft_trainer", recipe_words(settings.repo / "recipes", recipe, {**own, **overrides}))
    return Stage(name, title, command, steps, ALONE)


def _grpo(settings: Settings) -> Stage:
    title = "GRPO: 16 rollouts by vLLM, FSDP"
    return grpo_stage(settings, "grpo", title, "quickstart/grpo", settings.sft_model, settings.grpo_steps)


def grpo_stage(
    settings: Settings, name: str, title: str, recipe: str, model: Path, steps: int, **overrides: Any
) -> Stage:
    """A GRPO run with ``recipe`` from ``model``, in the run's folder ``name``."""
    data = settings.root / "data"
    own = {
        "actor_rollout_ref.model.path": model,
        "data.train_files": data / "train.parquet",
        "data.val_files": data / "val.parquet",
        "data.seed": settings.seed,
        "trainer.default_local_dir": settings.root / name,
        "trainer.total_training_steps": steps,
        "trainer.save_freq": settings.grpo_save_every,
    }
    command = module("verl.trainer.main_ppo", recipe_words(settings.repo / "recipes", recipe, {**own, **overrides}))
    return Stage(name, title, command, steps)


def measure_stage(settings: Settings, name: str, title: str, model: Path, above: Path | None = None) -> Stage:
    """The held-out answers of ``model``, greedy and at temperature 1, in the run's folder ``name``.

    ``above`` is the folder with the data's folder; None: the run's.
    """
    data, out = (above or settings.root) / "data" / "test.parquet", settings.root / name
    arguments = [*flags(model=model, data=data, out=out, samples=settings.samples), "--max-tokens", "32"]
    return Stage(name, title, module("omniq_verl.quickstart.measure", arguments))


def eval_stage(settings: Settings, name: str, title: str, model: Path, files: Sequence[Path]) -> Stage:
    """`omniq eval` of a tiny model on prepared files, at temperature 1, in the run's folder ``name``."""
    words = ["eval", "--model", model, "--data", *files, "--out", settings.root / name, "--max-tokens", 40]
    words += ["--samples", EVAL_SAMPLES, "--max-model-len", 320, "--dtype", "float32", "--memory", 0.3]
    return Stage(name, title, omniq(*words))
