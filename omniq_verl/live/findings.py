"""Measurements and findings of the live check. Pure."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from omniq_verl.data.files import replace_text

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
FILE_NAME = "live_check.json"
"""Name of the report in the run's folder."""


MODES = ("off", "first", "only")


class LiveCheckFailed(RuntimeError):
    """The live check failed, and the training was not started."""


def live_check_mode(config: DictConfig) -> str:
    """Whether a run starts with the live check: ``trainer.v1.live_check``.

    Raises:
        ValueError: it is not ``off``, ``first`` (check, then train) or ``only`` (check and end).
    """
    mode = OmegaConf.select(config, "trainer.v1.live_check", default="off")
    mode = "off" if mode is False else str(mode)  # YAML reads a bare off as false
    if mode not in MODES:
        raise ValueError(f"trainer.v1.live_check={mode}: choose one of {', '.join(MODES)}")
    return mode


@dataclass(frozen=True)
class Limits:
    """Largest allowed difference of log-probabilities between rollout engine and trainer, for the same tokens."""

    correlation: float
    """Smallest Pearson correlation of the probabilities."""
    mean: float
    """Largest mean of the absolute differences, in nats."""
    largest: float
    """Largest absolute difference, in nats."""
    shift: float = 0.0
    """Nats by which banning special tokens may raise all log-probabilities of the rollout engine: the value for a model
    that gives all tokens the same probability. It is added to both limits on differences."""


LIMITS = {
    "float32": Limits(correlation=0.9999, mean=0.001, largest=0.02),
    "float16": Limits(correlation=0.999, mean=0.01, largest=0.5),
    "bfloat16": Limits(correlation=0.995, mean=0.05, largest=1.5),
}
"""Limits by the less precise dtype of the two. In bf16 a healthy 3B model reached 0.99998 on an H200; random image
features give 0.73, and weights that were never loaded 0.2."""
_MARGIN = 3
"""The effect of the image must be this many times larger than the difference of the two."""


@dataclass(frozen=True)
class Agreement:
    """Comparison of two sets of log-probabilities, token by token."""

    tokens: int
    correlation: float | None
    """None if one of the two is constant."""
    mean: float
    largest: float

    def within(self, limits: Limits, effect: float | None = None) -> bool:
        """Whether the two agree.

        Args:
            limits: limits for the dtype.
            effect: mean difference that a wrong image would cause; the actual one must be clearly smaller.
        """
        correlated = self.correlation is None or self.correlation >= limits.correlation
        close = self.mean <= limits.mean + limits.shift and self.largest <= limits.largest + limits.shift
        return self.tokens > 0 and correlated and close and (effect is None or self.mean * _MARGIN <= effect)

    def __str__(self) -> str:
        correlation = "undefined" if self.correlation is None else f"{self.correlation:.5f}"
        return f"correlation {correlation}, difference {self.mean:.2g} on average and {self.largest:.2g} at most"


def agreement(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Agreement:
    """Compare log-probabilities of the same answers; each element has those of one answer, ``[T]``, in nats.

    Raises:
        ValueError: the numbers or lengths of answers differ.
    """
    pairs = list(zip(first, second, strict=True))
    if any(a.shape != b.shape for a, b in pairs):
        raise ValueError("the answers differ in length")
    one = np.concatenate([a for a, _ in pairs] or [np.zeros(0)]).astype(np.float64)
    two = np.concatenate([b for _, b in pairs] or [np.zeros(0)]).astype(np.float64)
    if not len(one):
        return Agreement(0, None, math.nan, math.nan)
    difference = np.abs(one - two)
    correlation = _correlation(np.exp(one), np.exp(two))
    return Agreement(len(one), correlation, float(difference.mean()), float(difference.max()))


def _correlation(one: np.ndarray, two: np.ndarray) -> float | None:
    # If every token is certain, only rounding errors vary, and their correlation is meaningless.
    if min(one.std(), two.std()) < 1e-4:
        return None
    return float(np.corrcoef(one, two)[0, 1])


@dataclass(frozen=True)
class Finding:
    """The outcome of one part of the check."""

    name: str
    status: str
    """``ok``, ``failed`` or ``skipped``."""
    measured: str
    """What was measured, on how much data, and the limit."""
    meaning: str = ""
    """The effect on the training, if it failed."""
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.name}: {self.status} ({self.measured})"
        return f"{line}. {self.meaning} Fix: {self.fix}" if self.status == FAILED else line


def finding(name: str, good: bool, measured: str, meaning: str, fix: str) -> Finding:
    """A finding, with meaning and fix only if it failed."""
    return Finding(name, OK, measured) if good else Finding(name, FAILED, measured, meaning, fix)


@dataclass
class LiveReport:
    """All findings about one run."""

    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0
    """Duration of the check, without the start of the engines."""
    conditions: dict[str, Any] = field(default_factory=dict)
    """Conditions of the measurement: rows, answers, dtype, model."""

    @property
    def failed(self) -> list[Finding]:
        """The findings that failed."""
        return [one for one in self.findings if one.status == FAILED]

    def save(self, folder: Path) -> Path:
        """Write the report as JSON into a folder; returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        return replace_text(folder / FILE_NAME, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "LiveReport":
        """Read a report written by ``save``.

        Raises:
            OSError, ValueError, KeyError, TypeError: the file is missing or not a report.
        """
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls([Finding(**one) for one in values["findings"]], values["seconds"], values["conditions"])
