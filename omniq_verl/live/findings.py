"""What the live check measures, and what it concludes from it. Pure."""

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
"""Name of the report in the folder of the run."""


MODES = ("off", "first", "only")


class LiveCheckFailed(RuntimeError):
    """The live check found something, and the training was not started."""


def live_check_mode(config: DictConfig) -> str:
    """Whether a run begins with the live check: ``trainer.v1.live_check``.

    Raises:
        ValueError: it is neither ``off`` nor ``first`` (check, then train) nor ``only`` (check and end).
    """
    mode = OmegaConf.select(config, "trainer.v1.live_check", default="off")
    mode = "off" if mode is False else str(mode)  # YAML reads a bare off as false
    if mode not in MODES:
        raise ValueError(f"trainer.v1.live_check={mode}: choose one of {', '.join(MODES)}")
    return mode


@dataclass(frozen=True)
class Limits:
    """How far the log-probabilities of the same tokens may be apart in the rollout engine and in the trainer."""

    correlation: float
    """Smallest Pearson correlation of the probabilities."""
    mean: float
    """Largest mean of the absolute differences, in nats."""
    largest: float
    """Largest absolute difference, in nats."""
    shift: float = 0.0
    """Nats by which the ban of special tokens may raise all log-probabilities of the rollout engine: what a model that
    gives all tokens the same probability would show. Both differences may be larger by this."""


LIMITS = {
    "float32": Limits(correlation=0.9999, mean=0.001, largest=0.02),
    "float16": Limits(correlation=0.999, mean=0.01, largest=0.5),
    "bfloat16": Limits(correlation=0.995, mean=0.05, largest=1.5),
}
"""By the least precise dtype of the two. In bf16 a healthy 3B model reached 0.99998 on an H200; random image features
give 0.73, and weights that were never loaded 0.2."""
_MARGIN = 3
"""The two must agree this many times better than the image changes the answers."""


@dataclass(frozen=True)
class Agreement:
    """Comparison of two log-probabilities of each token."""

    tokens: int
    correlation: float | None
    """None: one of the two is constant."""
    mean: float
    largest: float

    def within(self, limits: Limits, effect: float | None = None) -> bool:
        """Do the two agree?

        Args:
            limits: for their dtype.
            effect: mean difference that a wrong image would make; the agreement must be clearly better than that.
        """
        correlated = self.correlation is None or self.correlation >= limits.correlation
        close = self.mean <= limits.mean + limits.shift and self.largest <= limits.largest + limits.shift
        return self.tokens > 0 and correlated and close and (effect is None or self.mean * _MARGIN <= effect)

    def __str__(self) -> str:
        correlation = "undefined" if self.correlation is None else f"{self.correlation:.5f}"
        return f"correlation {correlation}, difference {self.mean:.2g} on average and {self.largest:.2g} at most"


def agreement(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Agreement:
    """Compare log-probabilities of the same answers; each element holds those of one answer, ``[T]``, in nats.

    Raises:
        ValueError: the answers differ in number or length.
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
    # Where every token is certain, rounding errors are all that varies, and their correlation means nothing.
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
    """What was measured, over how much, and the limit."""
    meaning: str = ""
    """If it failed: what that does to the training."""
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.name}: {self.status} ({self.measured})"
        return f"{line}. {self.meaning} Fix: {self.fix}" if self.status == FAILED else line


def finding(name: str, good: bool, measured: str, meaning: str, fix: str) -> Finding:
    """A finding that says what a failure means and how to fix it."""
    return Finding(name, OK, measured) if good else Finding(name, FAILED, measured, meaning, fix)


@dataclass
class LiveReport:
    """All findings about one run."""

    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0
    """Time the check took, without the start of the engines."""
    conditions: dict[str, Any] = field(default_factory=dict)
    """Over what it was measured: rows, answers, dtype, model."""

    @property
    def failed(self) -> list[Finding]:
        """The findings that failed."""
        return [one for one in self.findings if one.status == FAILED]

    def save(self, folder: Path) -> Path:
        """Write the report as JSON into a folder, and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        return replace_text(folder / FILE_NAME, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "LiveReport":
        """Read what ``save`` wrote.

        Raises:
            OSError, ValueError, KeyError, TypeError: there is no such report.
        """
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls([Finding(**one) for one in values["findings"]], values["seconds"], values["conditions"])
