"""Evaluate models of other families on our rows, with their question and parser, and scores on our labels' scale."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from omniq_verl.evaluation.answers import ReadAnswer, parsed_values, read_answer
from omniq_verl.families.family import Family
from omniq_verl.families.find import family_named
from omniq_verl.families.reading import without_cut_end
from omniq_verl.generation.expectation import ScoreTexts
from omniq_verl.generation.request import ERROR
from omniq_verl.tasks import Scale, Task, task_of


def theirs(family: Family, task: Task) -> Task:
    """Return the family's wording of a row's task.

    Raises:
        ValueError: the family does not have this task.
    """
    return family.task(task.name if task.name in family.tasks or not task.like else task.like)


def family_question(row: Mapping[str, Any], _note: str, family: str) -> Sequence[Mapping[str, str]]:
    """Return the family's question about a row. If it has several wordings, the row determines one, as in training."""
    info = row["extra_info"]
    task = theirs(family_named(family), task_of(info))
    return task.messages(info.get("id"), info.get("text") if task.needs_text else None)


def family_texts(info: Mapping[str, Any], family: str) -> ScoreTexts:
    """Return the texts of the family's scores, for the mode ``direct``."""
    found = family_named(family)
    return found.texts(theirs(found, task_of(info)))


def family_reader(name: str) -> ReadAnswer:
    """Return a parser that follows the family's authors and maps scores linearly to the scale of the row's label."""
    family = family_named(name)

    def read(text: str, finish_reason: str, task: Task) -> dict[str, Any]:
        if finish_reason == ERROR:
            return read_answer(text, finish_reason, task)
        asked = theirs(family, task)
        parsed = family.read(without_cut_end(text, finish_reason), asked)
        if parsed.score is not None and asked.scale is not None and task.scale is not None:
            parsed = replace(parsed, score=rescaled(parsed.score, asked.scale, task.scale))
        return parsed_values(parsed, task)

    return read


def rescaled(score: float, given: Scale, wanted: Scale) -> float:
    """Map a score linearly to another scale, end to end."""
    share = (score - given.low) / (given.high - given.low)
    return min(max(wanted.low + share * (wanted.high - wanted.low), wanted.low), wanted.high)
