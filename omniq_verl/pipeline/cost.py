"""What a stage will cost, estimated from measured figures: hours, disk, host memory, memory of each GPU.

Every figure names its source. At real size no whole training has been measured. Its time is scaled from one step of
Qwen2.5-VL-3B's sizes on one H200 (``benchmarks/gpu_step.py``, printed in ``docs/benchmarks.md``): proportional to
parameters and answers, inversely to GPUs. Memory is estimated by the formulas of the doctor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.gpu_memory import GIB, estimate_phases
from omniq_verl.doctor.host_memory import host_parts, loading_bytes
from omniq_verl.doctor.model_shape import Shape
from omniq_verl.doctor.space import needed_memory
from omniq_verl.pipeline.qwen_sizes import QWEN_3B, QWEN_7B, TENSORS_3B, TENSORS_7B
from omniq_verl.pipeline.stage import Stage

STEP_SECONDS = {"generation": 25.0, "old log-probabilities": 13.0, "reference": 13.0, "update": 31.0}
"""One H200, sizes of Qwen2.5-VL-3B, everything offloaded, vLLM in eager mode."""
STEP_ANSWERS, STEP_TOKENS = 128, 512
"""Answers of that step, and the most tokens of one."""
SYNC_SECONDS = 22.0
"""The first offload, once per run."""
IMAGES_PER_SECOND = 7.6
"""``Scorer`` on Qwen2.5-VL-7B's sizes, one H200, answers that end at once."""
CLIP_PER_SECOND = 394.0
"""``RaliScorer`` with CLIP ViT-L/14-336, one H200, files in, scores out."""
TRAINING_PASSES = 3.0
"""A backward pass costs two forward passes."""
FILES_PER_SECOND = 500.0
"""Image checks of the doctor, two CPU cores: 3,000 photographs in 6 s."""
FLOPS, MFU = 989e12, 0.28
"""Dense bf16 operations per second of an H100 or H200, and their share that a bare forward pass reached."""
SFT_TOKENS = 1_300
"""Tokens of a row for SFT: an image of 1024 x 768 pixels, the question, and the answer. An assumption."""
CHECKPOINT_BYTES = 20
"""Bytes of a checkpoint per parameter, as in ``doctor/space.py``: weights, Adam, weights for Hugging Face."""
KEPT = 2
"""Checkpoints that a recipe keeps (``max_actor_ckpt_to_keep``)."""
BEST_BYTES = 4
"""Bytes of the best checkpoint per parameter, as in ``doctor/space.py``: weights for Hugging Face alone."""
TINY_START, TINY_SFT_STEP, TINY_GRPO_STEP, TINY_MEASURE, TINY_OTHER = 20.0, 0.35, 19.0, 40.0, 60.0
"""Seconds of the quickstart's stages on two CPU cores that were shared with other work, 2026-11-27."""
TINY_PARAMETERS, TINY_BYTES = 620_000, 150e6
MEASURED = "docs/benchmarks.md, one H200"


@dataclass(frozen=True)
class Cost:
    """An estimate for one stage."""

    hours: float
    gpus: int = 0
    disk: float = 0.0
    """Bytes that stay."""
    peak_disk: float = 0.0
    """Bytes more while it runs."""
    host: float = 0.0
    """Bytes of host memory; 0: not estimated, little."""
    gpu_memory: float = 0.0
    """Bytes of the fullest GPU; 0: not estimated."""
    source: str = ""

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.gpus


Compose = Callable[[str, list[str]], DictConfig]
"""Recipe and overrides -> configuration."""


def estimate(stage: Stage, compose: Compose) -> Cost:
    """The cost of a stage.

    Args:
        stage: of any pipeline.
        compose: gives the configuration of a training.
    """
    if stage.gpus == 0 and stage.steps:
        return _tiny_training(stage)
    if "verl.trainer.main_ppo" in stage.command:
        return _grpo(stage, compose)
    if "verl.trainer.sft_trainer" in stage.command:
        return _sft(stage)
    if stage.gpus and "rali" in stage.command and "pairs" not in stage.command:
        return _clip(stage)
    if stage.gpus:
        return _answers(stage)
    if stage.work.images:
        return Cost(stage.work.images / FILES_PER_SECOND / 3600, source="docs/benchmarks.md, image checks on two cores")
    return _tiny_other(stage)


def _tiny_training(stage: Stage) -> Cost:
    step = TINY_GRPO_STEP if "verl.trainer.main_ppo" in stage.command else TINY_SFT_STEP
    host = needed_memory(1, TINY_PARAMETERS, 1.0)
    disk = KEPT * CHECKPOINT_BYTES * TINY_PARAMETERS
    return Cost((TINY_START + step * stage.steps) / 3600, 0, disk, disk / KEPT, host, source="quickstart, two cores")


def _tiny_other(stage: Stage) -> Cost:
    if "omniq_verl.pipeline.checkpoint" in stage.command:
        return Cost(0.0, source="a link")
    measured = "omniq_verl.quickstart.measure" in stage.command or "eval" in stage.command
    return Cost((TINY_MEASURE if measured else TINY_OTHER) / 3600, disk=TINY_BYTES / 10, source="quickstart, two cores")


def model_sizes(path: str) -> tuple[Shape, list[int]]:
    """Sizes of a model by its name; those of 7B if the name does not tell."""
    return (QWEN_3B, TENSORS_3B) if "3B" in Path(path).name else (QWEN_7B, TENSORS_7B)


def scaled(seconds: float, answers: float, shape: Shape, gpus: int) -> float:
    """Seconds of the measured step, for so many answers, a model of this shape, and several GPUs."""
    return seconds * answers / STEP_ANSWERS * shape.parameters / QWEN_3B.parameters / gpus


def _grpo(stage: Stage, compose: Compose) -> Cost:
    index = stage.command.index("--config-name")
    config = compose(stage.command[index + 1], stage.command[index + 2 :])
    shape, tensors = model_sizes(stage.work.model or str(config.actor_rollout_ref.model.path))
    answers = config.data.train_batch_size * config.actor_rollout_ref.rollout.n
    step = scaled(sum(STEP_SECONDS.values()), answers, shape, stage.gpus)
    parts = host_parts(config, shape, tensors, image_tokens=1_000)
    phases = estimate_phases(config, shape, image_share=0.8, gpu_bytes=80 * GIB)
    checkpoint = CHECKPOINT_BYTES * shape.parameters
    kept = OmegaConf.select(config, "trainer.max_actor_ckpt_to_keep") or KEPT
    return Cost(
        (stage.steps * step + SYNC_SECONDS) / 3600,
        stage.gpus,
        kept * checkpoint + BEST_BYTES * shape.parameters,
        checkpoint,
        max(sum(parts.values()), loading_bytes(config, shape, parts)),
        max(phases.values()),
        f"{stage.steps:,} steps of {step:.0f} s: {MEASURED}, scaled; memory: doctor",
    )


def _sft(stage: Stage) -> Cost:
    shape, _ = model_sizes(stage.work.model)
    flops = 2 * TRAINING_PASSES * shape.parameters * SFT_TOKENS * stage.work.images
    hours = flops / (FLOPS * MFU * stage.gpus) / 3600
    checkpoint = CHECKPOINT_BYTES * shape.parameters
    source = f"{stage.work.images:,} rows of {SFT_TOKENS:,} tokens (assumed) at {MFU:.0%} MFU: {MEASURED}"
    return Cost(hours, stage.gpus, KEPT * checkpoint, checkpoint, source=source)


def _answers(stage: Stage) -> Cost:
    work, (shape, _) = stage.work, model_sizes(stage.work.model)
    writing = scaled(STEP_SECONDS["generation"], work.answers, shape, stage.gpus) * work.tokens / STEP_TOKENS
    reading = work.images / IMAGES_PER_SECOND * shape.parameters / QWEN_7B.parameters
    seconds = reading / stage.gpus + writing
    source = f"{work.answers:,} answers of {work.tokens} tokens (assumed): {MEASURED}, scaled"
    if not work.answers:
        source = f"{work.images:,} images without a written answer: {MEASURED}, Scorer's images per second"
    return Cost(seconds / 3600, stage.gpus, 4_000.0 * work.answers, source=source)


def _clip(stage: Stage) -> Cost:
    passes = TRAINING_PASSES if "align" in stage.command else 1.0
    seconds = passes * stage.work.images / CLIP_PER_SECOND / stage.gpus
    return Cost(seconds / 3600, stage.gpus, 2e9, source=f"{MEASURED}, RALI's images per second")
