"""Rejection sampling: chooses the images, and the paths of each, to train on."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from omniq_verl.cot.verdict import Fault, Verdict, judge_path
from omniq_verl.data.row_refs import RowRef
from omniq_verl.generation.request import seed_of
from omniq_verl.tasks import LEVELS, Scale, task_of

TOO_EASY, TOO_HARD, KEPT = "too_easy", "too_hard", "kept"


@dataclass(frozen=True)
class Selection:
    """Rule of the selection. The paper (sec. 3.1) drops easy and hard images without giving bounds; these are ours."""

    min_pass_rate: float = 0.0
    """An image is kept if its share of correct paths is above this; 0 drops images without any."""
    max_pass_rate: float = 1.0
    """An image is kept if its share of correct paths is below this; 1 drops images with only correct paths."""
    max_paths: int | None = None
    """Use only the first N correct paths of an image; None: all."""
    number: str = "level"
    """The number in the training answer: ``level``, one from the correct level, or ``label``, the image's own."""
    jitter: float = 0.5
    """For ``level``: maximum distance from the level's middle, in level widths. 0.5 means anywhere in the level, so
    that answers vary enough for stage 1 of GRPO."""
    decimals: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.min_pass_rate < self.max_pass_rate <= 1:
            raise ValueError(
                f"pass rates need 0 <= min < max <= 1, got {self.min_pass_rate} and {self.max_pass_rate}; both"
                " bounds are exclusive"
            )
        if (self.max_paths is not None and self.max_paths < 1) or self.decimals < 0 or self.jitter < 0:
            raise ValueError(f"max_paths must be >= 1, decimals and jitter >= 0; got {self}")
        if self.number not in ("level", "label"):
            raise ValueError(f"number must be level or label, got {self.number!r}")

    def judge_rate(self, right: int, paths: int) -> str:
        """``too_hard``, ``too_easy`` or ``kept``. Both bounds are exclusive, and broken paths count too."""
        rate = right / paths
        if rate <= self.min_pass_rate:
            return TOO_HARD
        return TOO_EASY if rate >= self.max_pass_rate else KEPT


@dataclass
class Judged:
    """An image with its judged paths."""

    ref: RowRef
    level: str
    verdicts: list[Verdict]
    outcome: str
    chosen: list[Verdict] = field(default_factory=list)

    @property
    def right(self) -> int:
        """Number of paths that reached the correct level."""
        return sum(verdict.fault in (None, Fault.SAME_AGAIN) for verdict in self.verdicts)


def judge_row(ref: RowRef, answers: Sequence[Mapping[str, Any]], plan: str, rule: Selection) -> Judged:
    """Judge all paths of an image against its label."""
    level = right_level(ref.info)
    verdicts = _each_once(judge_path(answer, level, plan) for answer in answers)
    judged = Judged(ref, level, verdicts, KEPT)
    judged.outcome = rule.judge_rate(judged.right, len(verdicts))
    if judged.outcome == KEPT:
        judged.chosen = [verdict for verdict in verdicts if verdict.fault is None][: rule.max_paths]
    return judged


def right_level(info: Mapping[str, Any]) -> str:
    """The level of a row's label: five equal parts of the task's scale; a boundary belongs to the upper one."""
    return task_of(info).scale.level(info["score"])


def _each_once(verdicts: Iterable[Verdict]) -> list[Verdict]:
    seen: set[str] = set()
    found = []
    for verdict in verdicts:
        if verdict.fault is None and verdict.reasoning in seen:
            verdict = Verdict(Fault.SAME_AGAIN, level=verdict.level, characters=verdict.characters)
        seen.add(verdict.reasoning)
        found.append(verdict)
    return found


def sft_records(judged: Judged, row: Mapping[str, Any], rule: Selection, seed: int = 0) -> Iterator[dict[str, Any]]:
    """The chosen paths as records for verl's SFT trainer: the row's own question, without the plan, and the answer."""
    for number, verdict in enumerate(judged.chosen):
        key = f"{judged.ref.key}/{number}"
        answer = f"<think>{verdict.reasoning}</think><answer>{_number(judged, key, rule, seed)}</answer>"
        yield {
            "messages": [*row["prompt"], {"role": "assistant", "content": answer}],
            "images": row["images"],
            "extra_info": {"id": row["extra_info"]["id"], "task": row["extra_info"]["task"], "path": number},
        }


def _number(judged: Judged, key: str, rule: Selection, seed: int) -> str:
    scale, score = task_of(judged.ref.info).scale, judged.ref.info["score"]
    if rule.number == "level":
        width = (scale.high - scale.low) / len(LEVELS)
        middle = scale.low + width * (LEVELS.index(judged.level) + 0.5)
        drawn = np.random.default_rng(seed_of(key, seed)).uniform(-1, 1)
        score = min(max(middle + rule.jitter * width * drawn, scale.low), scale.high)
        if rule.jitter <= 0.5:
            return _within(scale, judged.level, score, rule.decimals)
    return f"{score:.{rule.decimals}f}"


def _within(scale: Scale, level: str, score: float, decimals: int) -> str:
    """A score of a level, rounded without leaving the level; a boundary belongs to the upper level."""
    unit = 10.0**-decimals
    for steps in (0, -1, 1):
        text = f"{score + steps * unit:.{decimals}f}"
        if scale.contains(float(text)) and scale.level(float(text)) == level:
            return text
    raise ValueError(
        f"no number with {decimals} decimals near {score} is in the level {level}. Fix: increase select.decimals"
    )


def count(judged: Iterable[Judged]) -> dict[str, dict[str, Any]]:
    """By data source: images and paths by outcome, and a histogram of the correct paths per image."""
    found: dict[str, dict[str, Any]] = {}
    for one in judged:
        about = found.setdefault(
            one.ref.info["data_source"], {"images": Counter(), "paths": Counter(), "right_paths": Counter()}
        )
        about["images"][one.outcome] += 1
        about["right_paths"][one.right] += 1
        about["paths"].update(_path_outcome(verdict) for verdict in one.verdicts)
        about["paths"]["learned"] += len(one.chosen)
    return found


def _path_outcome(verdict: Verdict) -> str:
    return "right" if verdict.fault is None else verdict.fault.value
