"""Rejection sampling: choose the images to train on, and the paths of each."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from omniq_verl.cot.emphasis import EMPHASES, count_records, draw_weighted, spread
from omniq_verl.cot.levels import RULES, Cut, cut_scores
from omniq_verl.cot.verdict import Fault, Verdict, judge_path
from omniq_verl.data.row_refs import RowRef
from omniq_verl.generation.request import seed_of
from omniq_verl.tasks import Scale, task_of

TOO_EASY, TOO_HARD, KEPT, NOT_DRAWN = "too_easy", "too_hard", "kept", "not_drawn"


@dataclass(frozen=True)
class Selection:
    """Rules of the selection. The paper (sec. 3.1) drops easy and hard images without giving bounds; these are ours."""

    min_pass_rate: float = 0.0
    """An image is kept if its share of correct paths is above this bound; 0 drops images without a correct path."""
    max_pass_rate: float = 1.0
    """An image is kept if its share of correct paths is below this bound; 1 drops images with only correct paths."""
    levels: str = "scale"
    """How the levels are divided: ``scale``, five equal parts of the task's scale; ``range``, five equal parts between
    the data source's lowest and highest label; ``quantiles``, a fifth of its labels in each level."""
    levels_of: dict[str, str] = field(default_factory=dict)
    """A different choice of ``levels`` by data source, e.g. ``{ava: quantiles}``."""
    emphasis: str = "hard"
    """Number of records of a kept image: ``hard``, the more records the fewer right paths; ``even``, the same number
    for all images; ``right``, one record for each right path."""
    max_paths: int = 4
    """Maximum number of records per image. The paper has 2.7 on average (41,183 records of 15,206 images)."""
    images: int | None = None
    """Maximum number of kept images per data source. They are drawn with probabilities in proportion to their share of
    wrong paths (``emphasis=hard``), otherwise with equal ones."""
    number: str = "level"
    """The number in the training answer: ``level``, a number in the correct level; ``label``, the image's own label."""
    jitter: float = 0.5
    """For ``level``: maximum distance from the level's middle, in level widths. 0.5 means anywhere in the level, so
    answers vary enough for stage 1 of GRPO."""
    decimals: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.min_pass_rate < self.max_pass_rate <= 1:
            raise ValueError(
                f"pass rates need 0 <= min < max <= 1, got {self.min_pass_rate} and {self.max_pass_rate}; both"
                " bounds are exclusive"
            )
        if self.max_paths < 1 or (self.images is not None and self.images < 1) or self.decimals < 0 or self.jitter < 0:
            raise ValueError(f"max_paths and images must be >= 1, decimals and jitter >= 0; got {self}")
        if unknown := [rule for rule in (self.levels, *self.levels_of.values()) if rule not in RULES]:
            raise ValueError(f"levels must be one of {', '.join(RULES)}, got {unknown[0]!r}")
        if self.emphasis not in EMPHASES:
            raise ValueError(f"emphasis must be one of {', '.join(EMPHASES)}, got {self.emphasis!r}")
        if self.number not in ("level", "label"):
            raise ValueError(f"number must be level or label, got {self.number!r}")

    def judge_rate(self, right: int, paths: int) -> str:
        """Return ``too_hard``, ``too_easy`` or ``kept``. Both bounds are exclusive, and rejected paths count, too."""
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
    cut: Cut
    chosen: list[Verdict] = field(default_factory=list)
    """One path for each record; a path can occur several times."""

    @property
    def right(self) -> int:
        """Number of paths that reached the correct level."""
        return sum(verdict.fault in (None, Fault.SAME_AGAIN) for verdict in self.verdicts)


def judge_row(
    ref: RowRef, answers: Sequence[Mapping[str, Any]], plan: str, rule: Selection, cut: Cut | None = None
) -> Judged:
    """Judge all paths of an image against its label.

    Args:
        ref: the image's row.
        answers: its paths (``omniq_verl.generation.request.Answer`` as mappings).
        plan: the plan that the paths followed.
        rule: rules of the selection.
        cut: levels of the image's data source; None: five equal parts of the task's scale.
    """
    cut = cut or scale_cut(ref.info)
    level = cut.level(ref.info["score"])
    verdicts = _each_once(judge_path(answer, level, plan) for answer in answers)
    judged = Judged(ref, level, verdicts, KEPT, cut)
    judged.outcome = rule.judge_rate(judged.right, len(verdicts))
    if judged.outcome == KEPT:
        distinct = [verdict for verdict in verdicts if verdict.fault is None]
        records = count_records(judged.right, len(verdicts), rule.max_paths, rule.emphasis)
        judged.chosen = spread(distinct[: rule.max_paths], records)
    return judged


def scale_cut(info: Mapping[str, Any]) -> Cut:
    """Divide a row's scale into five equal parts."""
    scale = task_of(info).score_scale
    return cut_scores([], scale.low, scale.high, "scale")


def draw_images(judged: Iterable[Judged], rule: Selection, seed: int = 0) -> None:
    """Keep at most ``rule.images`` images of each data source. The others become ``not_drawn``."""
    sources: defaultdict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        if one.outcome == KEPT:
            sources[one.ref.info["data_source"]].append(one)
    for kept in sources.values():
        if rule.images is None or len(kept) <= rule.images:
            continue
        wrong = (1 - one.right / len(one.verdicts) if rule.emphasis == "hard" else 1.0 for one in kept)
        drawn = draw_weighted(zip((one.ref.key for one in kept), wrong, strict=True), rule.images, seed)
        for one in kept:
            if one.ref.key not in drawn:
                one.outcome, one.chosen = NOT_DRAWN, []


def _each_once(verdicts: Iterable[Verdict]) -> list[Verdict]:
    seen: set[str] = set()
    found = []
    for verdict in verdicts:
        if verdict.fault is None and verdict.reasoning in seen:
            verdict = replace(verdict, fault=Fault.SAME_AGAIN, reasoning="")
        seen.add(verdict.reasoning)
        found.append(verdict)
    return found


def sft_records(judged: Judged, row: Mapping[str, Any], rule: Selection, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the chosen paths as records for verl's SFT trainer: the row's question (without plan) and the answer."""
    for number, verdict in enumerate(judged.chosen):
        key = f"{judged.ref.key}/{number}"
        answer = f"<think>{verdict.reasoning}</think><answer>{_number(judged, key, rule, seed)}</answer>"
        yield {
            "messages": [*row["prompt"], {"role": "assistant", "content": answer}],
            "images": row["images"],
            "extra_info": {"id": row["extra_info"]["id"], "task": row["extra_info"]["task"], "path": number},
        }


def _number(judged: Judged, key: str, rule: Selection, seed: int) -> str:
    scale, score = task_of(judged.ref.info).score_scale, judged.ref.info["score"]
    if rule.number == "level":
        low, high = judged.cut.bounds(judged.level)
        drawn = np.random.default_rng(seed_of(key, seed)).uniform(-1, 1)
        score = min(max((low + high) / 2 + rule.jitter * (high - low) * drawn, scale.low), scale.high)
        if rule.jitter <= 0.5:
            return _within(scale, judged.cut, judged.level, score, rule.decimals)
    return f"{score:.{rule.decimals}f}"


def _within(scale: Scale, cut: Cut, level: str, score: float, decimals: int) -> str:
    """Round a score without leaving its level. A boundary belongs to the upper level."""
    unit = 10.0**-decimals
    for steps in (0, -1, 1):
        text = f"{score + steps * unit:.{decimals}f}"
        if scale.contains(float(text)) and cut.level(float(text)) == level:
            return text
    raise ValueError(
        f"no number with {decimals} decimals near {score} is in the level {level}. Fix: increase select.decimals"
    )


def count(judged: Iterable[Judged]) -> dict[str, dict[str, Any]]:
    """Count by data source: images and paths by outcome, images by number of right paths, and labels by level.

    ``acceptance`` is the share of paths that reach the right level, ``records`` is the number to learn, and ``tokens``
    is the mean length of a learned answer as the generator wrote it (the paper's A.2 gives 478, 346 and 342).
    """
    found: dict[str, dict[str, Any]] = {}
    for one in judged:
        about = found.setdefault(one.ref.info["data_source"], _nothing(one.cut))
        about["images"][one.outcome] += 1
        about["levels"][one.level] += 1
        about["right_paths"][one.right] += 1
        about["paths"].update(_path_outcome(verdict) for verdict in one.verdicts)
        about["paths"]["learned"] += len({id(verdict) for verdict in one.chosen})
        about["records"] += len(one.chosen)
        about["tokens"] += sum(verdict.tokens for verdict in one.chosen)
    for about in found.values():
        about["tokens"] = about["tokens"] / about["records"] if about["records"] else None
        about["acceptance"] = _acceptance(about["right_paths"], about["paths"])
    return found


def _nothing(cut: Cut) -> dict[str, Any]:
    counters = {name: Counter() for name in ("images", "paths", "right_paths", "levels")}
    return {**counters, "records": 0, "tokens": 0, "level_edges": list(cut.edges)}


def _acceptance(right_paths: Mapping[int, int], outcomes: Mapping[str, int]) -> float:
    paths = sum(number for outcome, number in outcomes.items() if outcome != "learned")
    return sum(right * images for right, images in right_paths.items()) / paths


def _path_outcome(verdict: Verdict) -> str:
    return "right" if verdict.fault is None else verdict.fault.value
