"""Compare several ways to pick the best of n (OmniQuality-R, table 7), using the saved scores of a run.

Other scores of the same images, such as those of the paper's Q-Insight, DeQA or Q-Align, can be added from tables that
``omniq score`` wrote, both for measuring the picks and for picking.
"""

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from omniq_verl.data.files import replace_text
from omniq_verl.data.tables import score_in, table_rows
from omniq_verl.generation.provenance import provenance, this_start
from omniq_verl.generation.store import read_store
from omniq_verl.object_reference import is_reference
from omniq_verl.t2i.candidates import candidate_path, keep_sample
from omniq_verl.t2i.outside_selector import choose_by
from omniq_verl.t2i.ranking import Choice, Scores, choose_weighted, read_weights

_NAME = re.compile(r"\w[\w.+-]*")


@dataclass(frozen=True)
class Selector:
    """A way to pick: the image with the highest weighted mean; the first one on ties."""

    name: str
    """Also the name of its folder."""
    weights: Mapping[str, float] = field(default_factory=dict)
    function: str | None = None
    """Custom ``package.module:function``, used instead of weights; see ``outside_selector``."""

    def choose(self, scores: Scores) -> Choice:
        """Pick the best of one text's images."""
        return choose_by(self.function, scores) if self.function else choose_weighted(scores, self.weights)


@dataclass(frozen=True)
class Scored:
    """Images and scores of a run."""

    folder: Path
    prompts: Sequence[Mapping[str, Any]]
    scores: Sequence[Mapping[str, Sequence[float | None]]]
    """For each text: by criterion, one score per image."""

    @property
    def criteria(self) -> list[str]:
        """The run's tasks and the added criteria."""
        return list(self.scores[0])


@dataclass(frozen=True)
class Row:
    """Statistics of a selector's picks."""

    name: str
    same: float
    """Share of its picks that equal the first selector's."""
    means: Mapping[str, float | None]
    """Mean score by criterion; None if no pick has a score."""
    deviations: Mapping[str, float | None]
    """Population standard deviation over the texts by criterion; None if no pick has a score."""
    scored: Mapping[str, int]
    """Number of picks with a score by criterion."""


def read_selector(word: str, criteria: Collection[str] = ()) -> Selector:
    """Parse a selector from [NAME:]TASK=WEIGHT[,TASK=WEIGHT...] or [NAME:]package.module:function.

    The default name is derived from the value, such as aesthetic+0.5technical or package.module.function.

    Args:
        word: from the command line.
        criteria: known criteria; needed because names of custom tasks contain a colon.

    Raises:
        ValueError: the word is not a valid selector.
    """
    if "=" not in word and (function := next(filter(is_reference, (word, word.partition(":")[2])), None)):
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
        raise ValueError(
            f"{name!r} is not a valid folder name. Fix: use letters, digits and _, and . + - after the first character"
        )
    return name


def default_selectors(tasks: Sequence[str]) -> list[Selector]:
    """Each task alone, then all of them together."""
    words = [f"{task}=1" for task in tasks]
    return [read_selector(word, tasks) for word in (*words, *([",".join(words)] if len(words) > 1 else []))]


def read_run(folder: Path) -> Scored:
    """Read the scores of a ``best_of_n`` or ``reflect`` run.

    Raises:
        ValueError: the folder is not such a run, or has images without scores.
    """
    try:
        config = json.loads((folder / "scores" / "config.json").read_bytes())
        prompts, tasks = config["prompts"], config["tasks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is not a run of `omniq t2i best-of-n` ({type(error).__name__}: {error})") from error
    found: list[dict[int, Any]] = [{} for _ in prompts]
    for record in read_store(folder / "scores"):
        number, image = map(int, record["key"].split("/"))
        found[number][image] = record["scores"]
    drawn = [len(list(candidate_path(folder, number, 0).parent.glob("*.png"))) for number in range(len(prompts))]
    if any(not 0 < number == len(images) for number, images in zip(drawn, found, strict=True)):
        raise ValueError(f"{folder} has images without scores. Fix: finish the run; the same command resumes it")
    ordered = [[images[image] for image in sorted(images)] for images in found]
    return Scored(folder, prompts, [{task: [one[task]["score"] for one in some] for task in tasks} for some in ordered])


def add_scores(run: Scored, name: str, table: Path) -> Scored:
    """Add a criterion from a table of ``omniq score``; images that are not in the table get no score.

    Raises:
        ValueError: the table cannot be read, contains no image of the run or several of one name, or the name is
            invalid or taken.
    """
    if name in run.criteria or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a valid new name: it is taken ({', '.join(run.criteria)}) or has unsupported characters"
        )
    names = [
        [_tail(candidate_path(run.folder, number, image)) for image in range(len(scores[run.criteria[0]]))]
        for number, scores in enumerate(run.scores)
    ]
    by_name = _scores_by_name(table, {name for some in names for name in some})
    added = [[by_name.get(name) for name in some] for some in names]
    if all(score is None for scores in added for score in scores):
        raise ValueError(f"{table} contains no image of {run.folder}. Fix: omniq score {run.folder / 'candidates'}")
    both = zip(run.scores, added, strict=True)
    return replace(run, scores=[{**scores, name: list(map(_number, more))} for scores, more in both])


def _scores_by_name(table: Path, wanted: Collection[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
    """Scores of a run's images by the end of their path; NaN for an image that has none.

    Raises:
        ValueError: the table cannot be read, or two images have the same numbers, as those of two runs have.
    """
    found: dict[tuple[str, ...], tuple[str, float]] = {}
    try:
        for row in table_rows(table, ["image", "score"]):
            image, score = str(row["image"]), score_in(row["score"])
            if (name := _tail(Path(image))) not in wanted:
                continue
            if name in found:
                other = found[name][0]
                raise ValueError(f"{other} and {image} have the same numbers. Fix: score the images of one run alone")
            found[name] = image, math.nan if score is None else score
    except ValueError as error:
        raise ValueError(f"{table} is not a table of `omniq score` ({error})") from error
    return {name: score for name, (_, score) in found.items()}


def compare_selectors(run: Scored, selectors: Sequence[Selector]) -> tuple[list[Row], int]:
    """Compare the picks of each selector and of random picking; writes ``selected/<name>`` for each selector.

    Means are taken over the texts in which every selector finds an image with the scores it needs. The row "at random"
    is the expected value: each text contributes the mean over its images. ``selected/table.json`` has all figures.

    Returns:
        The rows, "at random" last, and the number of texts they cover.

    Raises:
        ValueError: no selector, duplicate names, an unknown criterion, or no text in which all selectors find an image.
    """
    if not selectors or len({one.name for one in selectors}) < len(selectors):
        raise ValueError("selectors must not be empty and must have distinct names")
    choices = {one.name: [one.choose(scores) for scores in run.scores] for one in selectors}
    for name, chosen in choices.items():
        _write_picks(run, name, [choice.best for choice in chosen])
    kept = [n for n in range(len(run.scores)) if all(chosen[n].best is not None for chosen in choices.values())]
    if not kept:
        raise ValueError("there is no text in which every selector finds an image with scores")
    first = choices[selectors[0].name]
    rows = []
    for name, chosen in choices.items():
        picks = [(n, best) for n in kept if (best := chosen[n].best) is not None]
        values = {task: [[run.scores[n][task][best]] for n, best in picks] for task in run.criteria}
        rows.append(_row(name, [chosen[n].best == first[n].best for n in kept], values))
    values = {task: [run.scores[n][task] for n in kept] for task in run.criteria}
    rows.append(_row("at random", [1 / len(first[n].ranking) for n in kept], values))
    figures = {"texts": len(kept), "of": len(run.scores), "rows": [asdict(row) for row in rows]}
    table = {"provenance": _conditions(run), **figures}
    replace_text(run.folder / "selected" / "table.json", json.dumps(table, indent=2) + "\n")
    return rows, len(kept)


def _conditions(run: Scored) -> dict[str, Any]:
    """Provenance of this comparison and of the run it reads; None for a run without a record."""
    path = run.folder / "provenance.json"
    return provenance([this_start()], run=json.loads(path.read_bytes()) if path.is_file() else None)


def _row(name: str, same: Sequence[float], values: Mapping[str, Sequence[Sequence[float | None]]]) -> Row:
    """Statistics of a selector, from the scores of the images it may pick in each text."""
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
    """The end of a candidate's path; unlike the whole path it survives moving the run.

    It begins with ``candidates``, because the copies in ``best`` and ``selected`` have the same numbers as the first
    images.
    """
    return image.parts[-4:]


def _number(score: Any) -> float | None:
    return None if score is None or not math.isfinite(score) else float(score)
