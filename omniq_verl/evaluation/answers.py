"""Turn answers and labels into one row per answer and one row per image."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from omniq_verl.data.digits import without_rounding_errors
from omniq_verl.data.files import whole_text
from omniq_verl.data.images import BadImage
from omniq_verl.data.row_refs import RowReader, RowRef, named
from omniq_verl.generation.request import ERROR
from omniq_verl.rewards import parse_response
from omniq_verl.rewards.degradation import canonical_class, canonical_level, stated_class
from omniq_verl.rewards.parsing import Parsed
from omniq_verl.tasks import Task, read_truth, shown, task_of, text_fault

ReadAnswer = Callable[[str, str, Task], dict[str, Any]]
"""Takes an answer, the reason why it ended and the task of its row; returns the same fields as ``read_answer``."""
BAD_IMAGE = "bad_image"
CONTROL_TOKEN = "control_token"
NO_DISTORTION = "null"
"""Marks "no distortion" in tables, where an empty cell means "not asked" or "rejected"."""


def read_labels(refs: Sequence[RowRef]) -> pd.DataFrame:
    """Read the labels of the rows, in order, indexed by ``key``.

    ``set`` is the data source, or ``<data source>/<task>`` if one source has several tasks. ``target``,
    ``scale_low`` and ``scale_high`` are set for tasks with a score, ``class_target`` and ``level_target`` for tasks
    with a distortion. ``details`` is a JSON object as text, or None.

    Raises:
        ValueError: a row has no such label because it compares images, or its label or details are invalid. The message
            names file and row.
    """
    if compared := [ref for ref in refs if task_of(ref.info).asks_for == "choice"]:
        raise ValueError(
            f"{compared[0].file}: its task {compared[0].info['task']} compares images, which omniq eval does not"
            "  measure. Fix: train with the file as data.val_files, which reports"
            " val-core/<source>/choice_accuracy, or compare in both orders with omniq_verl.scoring.comparison.Comparer"
        )
    if several := [ref for ref in refs if task_of(ref.info).asks_for == "scores"]:
        raise ValueError(
            f"{several[0].file}: its task {several[0].info['task']} asks for several numbers, and one is measured here."
            "  Fix: train with the file as data.val_files, which prints val-core/<source>/<head>/srcc"
        )
    rows = RowReader(["reward_model", "extra_info"]).read(refs)
    labels = pd.DataFrame([_checked_label(ref, row) for ref, row in zip(refs, rows, strict=True)])
    labels = labels.set_index("key")
    tasks = labels.groupby("data_source").task.transform("nunique")
    labels.insert(0, "set", labels.data_source.where(tasks == 1, labels.data_source + "/" + labels.task))
    return labels


def _checked_label(ref: RowRef, row: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return _label(ref, row)
    except ValueError as error:
        raise ValueError(f"{named(ref)} ({ref.key}): {error}") from None


def _label(ref: RowRef, row: Mapping[str, Any]) -> dict[str, Any]:
    task = task_of(ref.info)
    truth = read_truth(task, (row["reward_model"] or {}).get("ground_truth"))
    scale, scored = task.scale, task.scale is not None
    return {
        "key": ref.key,
        **{name: ref.info[name] for name in ("data_source", "task", "id", "split")},
        "target": float(truth["score"]) if scored else np.nan,
        "scale_low": scale.low if scale else np.nan,
        "scale_high": scale.high if scale else np.nan,
        "class_target": None if scored else canonical_class(truth["distortion_class"]) or NO_DISTORTION,
        "level_target": None if scored else canonical_level(truth["severity"]) or NO_DISTORTION,
        "details": _details(row["extra_info"].get("details")),
    }


def _details(found: object) -> str | None:
    """Return the details as JSON text; None if a row has none.

    Raises:
        ValueError: the details are not an object.
    """
    if found is None or found != found:  # pandas stores None as NaN
        return None
    try:
        read = json.loads(found) if isinstance(found, str) else found
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise ValueError(f"extra_info.details is {shown(found)}, not a JSON object. Fix: write one, or remove it")
    return json.dumps(read, default=str)


_NOTHING: dict[str, Any] = {"score": None, "level": None, "distortion": None, "severity": None}


def read_answer(text: str, finish_reason: str, task: Task) -> dict[str, Any]:
    """Parse an answer into ``status``, ``score``, ``level``, ``distortion`` and ``severity``; missing values are None.

    The status is the parser's, "bad_image" if the row's image could not be read, or "error" if the engine rejected the
    question. A JSON answer that names no distortion is "ok" with the class "not named", which is wrong for every image.
    """
    if finish_reason == ERROR:
        return {**_NOTHING, "status": BAD_IMAGE if text.startswith(f"{BadImage.__name__}: ") else ERROR}
    return parsed_values(parse_response(text, task.answer_format, task.scale), task)


def parsed_values(parsed: Parsed, task: Task) -> dict[str, Any]:
    """Return the same fields as ``read_answer``, from an answer that is already parsed."""
    found = {**_NOTHING, "status": parsed.status.value}
    if parsed.score is not None and task.scale is not None:
        return {**found, "score": parsed.score, "level": task.scale.level(parsed.score)}
    if parsed.fields is not None:
        found["distortion"] = canonical_class(stated_class(parsed.fields)) or NO_DISTORTION
        found["severity"] = canonical_level(parsed.fields.get("severity")) or NO_DISTORTION
    return found


def read_reasoning(text: str, finish_reason: str, task: Task) -> tuple[str, str, float]:
    """Return the reasoning and score of an answer as ("ok", text, score), or the reason why there is none.

    The reason is the parser's status, "error" if the engine rejected the question, "no_reasoning", or "control_token"
    if the text contains a token that a model trained on it would not treat as text.
    """
    if finish_reason == ERROR:
        return ERROR, "", np.nan
    parsed = parse_response(text, task.answer_format, task.scale)
    if not parsed.ok:
        return parsed.status.value, "", np.nan
    text = whole_text(parsed.reasoning or "")
    if not text:
        return "no_reasoning", "", np.nan
    if text_fault(text):
        return CONTROL_TOKEN, "", np.nan
    return "ok", text, np.nan if parsed.score is None else parsed.score


def judge_answers(
    labels: pd.DataFrame, records: Iterable[Mapping[str, Any]], read: ReadAnswer | None = None
) -> pd.DataFrame:
    """Parse all answers, one row per answer.

    Args:
        labels: from ``read_labels``.
        records: records of the store; those of other rows are left out.
        read: a reader to use instead of ``read_answer``.

    Returns:
        A table in the order of the labels: ``key``, ``sample`` (index among the row's answers), ``answer``,
        ``finish_reason``, ``tokens``, and from ``read_answer`` ``status``, ``score``, ``level``, ``distortion``,
        ``severity``.
    """
    tasks = {key: task_of(row) for key, row in zip(labels.index, _records_of(labels), strict=True)}
    lines: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if task := tasks.get(record["key"]):
            lines[record["key"]] = [
                _line(record["key"], *pair, task, read or read_answer) for pair in enumerate(record["answers"])
            ]
    columns = [
        "key",
        "sample",
        "answer",
        "finish_reason",
        "tokens",
        "status",
        "score",
        "level",
        "distortion",
        "severity",
    ]
    judged = pd.DataFrame([line for key in labels.index for line in lines.get(key, [])], columns=columns)
    return judged.astype({"score": float})


def _line(key: str, sample: int, answer: Mapping[str, Any], task: Task, read: ReadAnswer) -> dict[str, Any]:
    return {
        "key": key,
        "sample": sample,
        "answer": whole_text(answer["text"]),
        "finish_reason": answer["finish_reason"],
        "tokens": answer["tokens"],
        **read(answer["text"], answer["finish_reason"], task),
    }


def per_image(labels: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Combine the answers to each image, one row per image with its label.

    ``answers`` and ``parsed`` are counts. ``score`` is the mean of the parsed answers (NaN if there are none),
    ``spread`` their population standard deviation. ``class_right`` and ``level_right`` are the shares of all answers
    that are correct; a rejected answer is wrong. The level of a score is the one of five equal parts of the scale that
    contains it. The level of a distortion counts only if the class is correct (Q-Insight sec. 3.3). It is NaN for an
    image without distortion (Q-Insight table 3).
    """
    asked = judged.join(labels[["class_target", "level_target", "target", "scale_low", "scale_high", "task"]], on="key")
    asked["class_right"] = (asked.distortion == asked.class_target).astype(float)
    asked["level_right"] = asked.class_right * (asked.severity == asked.level_target)
    asked.loc[asked.class_target == NO_DISTORTION, "level_right"] = np.nan
    scored = asked.target.notna()
    asked.loc[scored, "class_right"] = np.nan
    asked.loc[scored, "level_right"] = (asked.level[scored] == _levels(asked[scored])).astype(float)
    groups = asked.groupby("key", sort=False)
    found = pd.DataFrame(
        {
            "answers": groups.size(),
            "parsed": (asked.status == "ok").groupby(asked.key, sort=False).sum(),
            "score": without_rounding_errors(groups.score.mean()),
            "spread": without_rounding_errors(groups.score.std(ddof=0)),
            "class_right": groups.class_right.mean(),
            "level_right": groups.level_right.mean(),
        }
    )
    return labels.join(found, how="inner").reset_index()


def _records_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as dicts with column names."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _levels(asked: pd.DataFrame) -> list[str]:
    return [task_of(row).score_scale.level(row["target"]) for row in _records_of(asked)]
