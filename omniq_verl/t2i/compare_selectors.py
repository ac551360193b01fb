"""Several ways to pick the best of n, side by side (OmniQuality-R, table 7): over the scores a run has kept.

Further scores of the same images, such as those of the paper's Q-Insight, DeQA or Q-Align, come from tables that
``omniq score`` wrote; they can be measured by, and selected by.
"""

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from omniq_verl.data.files import replace_text
from omniq_verl.doors import is_door
from omniq_verl.generation.provenance import provenance, this_start
from omniq_verl.generation.store import read_store
from omniq_verl.t2i.candidates import candidate_path, keep_sample
from omniq_verl.t2i.outside_selector import choose_by
from omniq_verl.t2i.ranking import Choice, Scores, choose_weighted, read_weights

_NAME = re.compile(r"\w[\w.+-]*")
_READERS = {
    ".csv": pd.read_csv,
    ".jsonl": lambda path: pd.read_json(path, lines=True),
    ".parquet": pd.read_parquet,
}


@dataclass(frozen=True)
class Selector:
    """A way to pick: the image with the highest weighted mean, the earliest of equal ones."""

    name: str
    """Also of its folder."""
    weights: Mapping[str, float] = field(default_factory=dict)
    function: str | None = None
    """``package.module:function`` of the user's own, in place of weights; see ``outside_selector``."""

    def choose(self, scores: Scores) -> Choice:
        """The best of one text's images."""
        return choose_by(self.function, scores) if self.function else choose_weighted(scores, self.weights)


@dataclass(frozen=True)
class Scored:
    """What a run drew and scored."""

    folder: Path
    prompts: Sequence[Mapping[str, Any]]
    scores: Sequence[Mapping[str, Sequence[float | None]]]
    """Of each text: by criterion, one an image."""

    @property
    def criteria(self) -> list[str]:
        """The run's tasks, and whatever was added."""
        return list(self.scores[0])


@dataclass(frozen=True)
class Row:
    """What a selector's picks are like."""

    name: str
    same: float
    """Share of its picks that are also the first selector's."""
    means: Mapping[str, float | None]
    """By criterion; None where no pick has a score."""
    deviations: Mapping[str, float | None]
    """Likewise: standard deviation (population) over the texts."""
    scored: Mapping[str, int]
    """Likewise: how many picks have a score."""


def read_selector(word: str, criteria: Collection[str] = ()) -> Selector:
    """A selector from [NAME:]TASK=WEIGHT[,TASK=WEIGHT...] or [NAME:]package.module:function.

    Without a name it gets one such as aesthetic+0.5technical, or package.module.function.

    Args:
        word: of the command line.
        criteria: what can be named; tasks of the user's own have a colon in their names.

    Raises:
        ValueError: it is none.
    """
    if "=" not in word and (function := next(filter(is_door, (word, word.partition(":")[2])), None)):
        name = word.removesuffix(function).removesuffix(":") or function.replace(":", ".")
        return Selector(_folder_name(name), function=function)
    name = _given_name(word, criteria)
    found = read_weights(word[len(name) + 1 if name else 0 :].split(","))
    given = "+".join(f"{'' if weight == 1 else f'{weight:g}'}{task}" for task, weight in found.items())
    return Selector(_folder_name(name or given.replace(":", ".")), found)


def _given_name(word: str, criteria: Collection[str]) -> str:
    task = word.partition("=")[0]
    if task in criteria:
        return ""
    name, _, rest = task.partition(":")
    return name if rest in criteria else word.rpartition(":")[0]


def _folder_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a folder: letters, digits, and . + - _ within")
    return name


def default_selectors(tasks: Sequence[str]) -> list[Selector]:
    """Each task alone, and all together."""
    words = [f"{task}=1" for task in tasks]
    return [read_selector(word, tasks) for word in (*words, *([",".join(words)] if len(words) > 1 else []))]


def read_run(folder: Path) -> Scored:
    """The scores of a run of ``best_of_n`` or ``reflect``.

    Raises:
        ValueError: it is none, or nothing is scored yet.
    """
    try:
        config = json.loads((folder / "scores" / "config.json").read_bytes())
        prompts, tasks = config["prompts"], config["tasks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is no run of `omniq t2i best-of-n` ({type(error).__name__}: {error})") from error
    found: list[dict[int, Any]] = [{} for _ in prompts]
    for record in read_store(folder / "scores"):
        number, image = map(int, record["key"].split("/"))
        found[number][image] = record["scores"]
    drawn = [len(list(candidate_path(folder, number, 0).parent.glob("*.png"))) for number in range(len(prompts))]
    if any(not 0 < number == len(images) for number, images in zip(drawn, found, strict=True)):
        raise ValueError(f"{folder} has images without scores. Fix: let the run end, the same command goes on")
    ordered = [[images[image] for image in sorted(images)] for images in found]
    return Scored(folder, prompts, [{task: [one[task]["score"] for one in some] for task in tasks} for some in ordered])


def add_scores(run: Scored, name: str, table: Path) -> Scored:
    """The same with one criterion more, from a table of ``omniq score``; images it does not name have no score.

    Raises:
        ValueError: it cannot be read, names no image of the run, or the run has a criterion of that name.
    """
    if name in run.criteria or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no new name beside {', '.join(run.criteria)}")
    try:
        read = _READERS[table.suffix.lower()](table)
        numbers = pd.to_numeric(read["score"])
        by_name = {_tail(Path(image)): score for image, score in zip(read["image"], numbers, strict=True)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{table} is no table of `omniq score` ({type(error).__name__}: {error})") from error
    added = [
        [by_name.get(_tail(candidate_path(run.folder, number, image))) for image in range(len(scores[run.criteria[0]]))]
        for number, scores in enumerate(run.scores)
    ]
    if all(score is None for scores in added for score in scores):
        raise ValueError(f"{table} names no image of {run.folder}. Fix: omniq score {run.folder / 'candidates'}")
    both = zip(run.scores, added, strict=True)
    return replace(run, scores=[{**scores, name: list(map(_number, more))} for scores, more in both])


def compare_selectors(run: Scored, selectors: Sequence[Selector]) -> tuple[list[Row], int]:
    """What each picks, and what picking at random would give; each gets its folder ``selected/<name>``.

    The means are over the texts in which all selectors find an image with the scores they need. The row "at random" is
    the expectation: of a text the mean over its images. ``selected/table.json`` keeps all figures.

    Returns:
        The rows, "at random" last, and over how many texts they are.

    Raises:
        ValueError: no selector, two of one name, one by an unknown criterion, or no text in which all find an image.
    """
    if not selectors or len({one.name for one in selectors}) < len(selectors):
        raise ValueError("selectors need names of their own, and there is at least one")
    choices = {one.name: [one.choose(scores) for scores in run.scores] for one in selectors}
    for name, chosen in choices.items():
        _write_picks(run, name, [choice.best for choice in chosen])
    kept = [n for n in range(len(run.scores)) if all(chosen[n].best is not None for chosen in choices.values())]
    if not kept:
        raise ValueError("in no text all selectors find an image with scores")
    first = choices[selectors[0].name]
    rows = []
    for name, chosen in choices.items():
        values = {task: [[run.scores[n][task][chosen[n].best]] for n in kept] for task in run.criteria}
        rows.append(_row(name, [chosen[n].best == first[n].best for n in kept], values))
    values = {task: [run.scores[n][task] for n in kept] for task in run.criteria}
    rows.append(_row("at random", [1 / len(first[n].ranking) for n in kept], values))
    figures = {"texts": len(kept), "of": len(run.scores), "rows": [asdict(row) for row in rows]}
    table = {"provenance": _conditions(run), **figures}
    replace_text(run.folder / "selected" / "table.json", json.dumps(table, indent=2) + "\n")
    return rows, len(kept)


def _conditions(run: Scored) -> dict[str, Any]:
    """Conditions of this comparison, and of the run that drew and scored; None if that run has no record."""
    path = run.folder / "provenance.json"
    return provenance([this_start()], run=json.loads(path.read_bytes()) if path.is_file() else None)


def _row(name: str, same: Sequence[float], values: Mapping[str, Sequence[Sequence[float | None]]]) -> Row:
    """Figures of a selector from the scores of what it may pick in each text."""
    found = {}
    for task, by_text in values.items():
        known = [[score for score in scores if score is not None] for scores in by_text]
        found[task] = [float(np.mean(scores)) for scores in known if scores]
    means = {task: float(np.mean(some)) if some else None for task, some in found.items()}
    deviations = {task: float(np.std(some)) if some else None for task, some in found.items()}
    return Row(name, float(np.mean(same)), means, deviations, {task: len(some) for task, some in found.items()})


def _write_picks(run: Scored, name: str, picks: Sequence[int | None]) -> None:
    for number, best in enumerate(picks):
        image = None if best is None else candidate_path(run.folder, number, best)
        keep_sample(image, run.folder / "selected" / name, number, run.prompts[number])


def _tail(image: Path) -> tuple[str, ...]:
    """The number of its text, and its own: what is left of a path when the run is moved, or scored from elsewhere."""
    return image.parts[-3::2]


def _number(score: Any) -> float | None:
    return None if score is None or not math.isfinite(score) else float(score)
