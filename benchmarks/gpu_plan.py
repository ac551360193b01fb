"""Defines what one run of ``gpu_step.py`` measures; passed as JSON to the measuring processes."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from gpu_flops import Lengths


@dataclass(frozen=True)
class Plan:
    """Sizes of the work. Paths are absolute."""

    size: str
    out: str
    on_gpu: bool
    model: str = ""
    train: str = ""
    parameters: int = 0
    prompt_tokens: int = 0
    """Tokens of the longest prompt, image tokens included."""
    prompt_tokens_mean: float = 0.0
    grid: tuple[int, int] = (0, 0)
    """Image tokens per column and row."""
    width: int = 1024
    height: int = 768
    prompts: int = 8
    answers: int = 16
    answer_tokens: int = 512
    steps: int = 3
    score_images: int = 256
    score_tokens: int = 128
    few_tokens: int = 13
    """The second answer length at which ``Scorer`` is measured."""
    rali_images: int = 1024
    eager: bool = False
    """Run vLLM without CUDA graphs and compilation."""
    peak: float = 989e12
    """Peak operations per second of the card."""
    gpu_bytes: int = 0
    """Memory of the card in bytes."""
    overrides: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "Plan":
        values = json.loads(path.read_text())
        return cls(**{**values, "grid": tuple(values["grid"]), "overrides": tuple(values["overrides"])})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))

    @property
    def most_prompt_tokens(self) -> int:
        """``data.max_prompt_length``: the longest prompt, rounded up to a multiple of 16."""
        return -(-self.prompt_tokens // 16) * 16

    @property
    def lengths(self) -> Lengths:
        """The planned lengths; training reports the actual ones."""
        return Lengths(self.prompt_tokens_mean, self.answer_tokens, self.grid)
