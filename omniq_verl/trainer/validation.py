"""Validation metrics: PLCC, SRCC, MAE, levels, rejected answers. Pure."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from omniq_verl.evaluation.correlations import correlations
from omniq_verl.rewards import Status
from omniq_verl.rewards.heads import PREFIX, heads_among
from omniq_verl.tasks import names_by_number

logger = logging.getLogger(__name__)
ANSWER_KEYS = ("status", "task", "pred", "target", "level_right", "level_asked", "class_right", "choice_right")
"""Keys of ``compute_score`` whose plain averages are meaningless; they are turned into metrics here."""


def validation_metrics(
    data_sources: Sequence[str],
    answers: Mapping[str, Sequence[float | None]],
    rows: Sequence[str] | None = None,
    tasks: Iterable[str] = (),
) -> dict[str, float]:
    """Metrics over all answers of each data source, and their means over the sources that have them.

    A source with several tasks is ``<source>/<task>`` for each of them, as in ``omniq eval``.

    ``val-core/<source>/`` has ``plcc``, ``srcc``, ``mae``, ``level_accuracy`` (not for comparisons and images without
    distortion, which have no level), ``class_accuracy``, ``choice_accuracy`` (for comparisons) and ``parse_failure``;
    ``val-aux/<source>/rejected/<status>`` has shares of rejected answers; the means are under ``val-core/mean/``.
    Rejected answers do not enter PLCC, SRCC and MAE, and count as wrong in the accuracies. Undefined metrics (a
    constant prediction has no correlation) are left out and named in the log.

    The numbers of answers are under ``val-aux/<source>/``: ``rows``, ``answers``, ``unreadable`` (answers that could
    not be parsed), ``lost`` (failed rollouts, which have no answer; see ``with_lost``) and, for tasks that ask for a
    score, ``scored`` (answers in PLCC, SRCC and MAE).

    Where a task asks for several numbers, ``val-core/<source>/<head>/`` ``plcc``, ``srcc`` and ``mae`` are of each, and
    ``val-aux/<source>/<head>/scored`` is the number of answers they are computed over.

    Args:
        data_sources: of each answer, ``[N]``.
        answers: ``ANSWER_KEYS`` of ``compute_score``'s result, each ``[N]``, and ``head/<name>/...`` where it has them
            (None for answers to other tasks).
        rows: what tells the row of each answer from others, ``[N]``; None: rows are not counted.
        tasks: names of the tasks that the rows ask, where some are not of this package.

    Raises:
        ValueError: two tasks have the same number.
    """
    names = names_by_number(tasks)
    keys = (*ANSWER_KEYS, *(key for key in answers if key.startswith(PREFIX)))
    columns = {key: np.asarray(answers[key], dtype=np.float64) for key in keys}  # None becomes NaN
    metrics: dict[str, float] = {}
    of_source: dict[str, list[float]] = {}
    of_row = None if rows is None else np.asarray(rows)
    for source, mine in _groups(np.asarray(data_sources), columns["task"], names):
        chosen = {key: column[mine] for key, column in columns.items()}
        counts = {} if of_row is None else {"rows": len(np.unique(of_row[mine]))}
        for name, number in {**counts, **_counts(chosen)}.items():
            metrics[f"val-aux/{source}/{name}"] = float(number)
        for name, value in _of_one_source(source, chosen).items():
            metrics[f"val-core/{source}/{name}"] = value
            of_source.setdefault(name, []).append(value)
        for name, share in _rejected(chosen["status"]).items():
            metrics[f"val-aux/{source}/rejected/{name}"] = share
    metrics.update({f"val-core/mean/{name}": float(np.mean(values)) for name, values in of_source.items()})
    return metrics


def with_lost(
    data_sources: Sequence[str],
    answers: Mapping[str, Sequence[float | None]],
    rows: Sequence[str],
    expected: Mapping[tuple[str, str], int],
) -> tuple[list[str], dict[str, list[float | None]], list[str]]:
    """The arguments of ``validation_metrics`` with a row of None for each rollout that failed: verl leaves these out.

    A lost rollout belongs to the task of its row's other answers, or to all tasks of its source if there are none.

    Args:
        data_sources: of each answer, ``[N]``.
        answers: as for ``validation_metrics``, each ``[N]``.
        rows: what tells the row of each answer from others, ``[N]``.
        expected: how many answers there should be, by data source and row.
    """
    found = Counter(rows)
    asked = dict(zip(rows, answers["task"], strict=True))
    lost = [(source, row) for (source, row), count in expected.items() for _ in range(count - found[row])]
    more = {key: [None] * len(lost) for key in answers} | {"task": [asked.get(row) for _, row in lost]}
    return (
        [*data_sources, *(source for source, _ in lost)],
        {key: [*column, *more[key]] for key, column in answers.items()},
        [*rows, *(row for _, row in lost)],
    )


def asked_tasks(dataset: Any) -> frozenset[str]:
    """Names of the tasks in ``extra_info`` of verl's dataset; empty for datasets of other classes."""
    frame = getattr(dataset, "dataframe", None)
    if frame is None or "extra_info" not in frame.column_names:
        return frozenset()
    infos = (info for info in frame["extra_info"] if isinstance(info, dict))
    return frozenset(task for info in infos if isinstance(task := info.get("task"), str))


def task_names_of(numbers: Iterable[float | None], tasks: Iterable[str]) -> list[str | None]:
    """Names of the tasks for the numbers from ``compute_score``; None stays None."""
    names = names_by_number(tasks)
    return [None if number is None or number != number else _name(number, names) for number in numbers]


def _name(number: float, names: Mapping[int, str]) -> str:
    return names.get(int(number), f"task-{number:.0f}")


def _groups(sources: np.ndarray, tasks: np.ndarray, names: Mapping[int, str]) -> Iterator[tuple[str, np.ndarray]]:
    """Group names with masks of their answers; a lost rollout belongs to each task of its source."""
    for source in sorted(set(sources.tolist())):
        of_source, lost = sources == source, np.isnan(tasks)
        asked = np.unique(tasks[of_source & ~lost])
        if len(asked) < 2:
            yield source, of_source
        else:
            yield from ((f"{source}/{_name(task, names)}", of_source & ((tasks == task) | lost)) for task in asked)


def _counts(answers: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Numbers of answers on which a source's metrics are based."""
    status, lost = answers["status"], np.isnan(answers["status"])
    counts = {"answers": len(status), "unreadable": int(np.sum(~lost & (status != 0))), "lost": int(lost.sum())}
    if (~np.isnan(answers["target"])).any():
        counts["scored"] = int(np.sum(~np.isnan(answers["pred"]) & ~np.isnan(answers["target"])))
    for head in heads_among(list(answers)):
        pred, target = (answers[f"{PREFIX}{head}/{name}"] for name in ("pred", "target"))
        if (~np.isnan(target)).any():
            counts[f"{head}/scored"] = int(np.sum(~np.isnan(pred) & ~np.isnan(target)))
    return counts


def _of_one_source(source: str, answers: Mapping[str, np.ndarray]) -> dict[str, float]:
    chosen, lost = ~np.isnan(answers["choice_right"]), np.isnan(answers["status"])
    found = {"parse_failure": float(np.mean(answers["status"] != 0))}
    if chosen.any():
        found["choice_accuracy"] = float(np.mean(np.nan_to_num(answers["choice_right"][chosen | lost])))
    if (leveled := answers["level_asked"] == 1).any() or lost.all():
        found["level_accuracy"] = float(np.mean(np.nan_to_num(answers["level_right"][leveled | lost])))
    if (asked := ~np.isnan(answers["class_right"])).any():
        found["class_accuracy"] = float(np.mean(np.nan_to_num(answers["class_right"][asked | lost])))
    if (~np.isnan(answers["target"])).any():
        found.update(_of_scores(source, answers["pred"], answers["target"]))
    for head in heads_among(list(answers)):
        pred, target = (answers[f"{PREFIX}{head}/{name}"] for name in ("pred", "target"))
        if (~np.isnan(target)).any():
            of_head = _of_scores(f"{source}/{head}", pred, target)
            found.update({f"{head}/{name}": value for name, value in of_head.items()})
    return found


def _of_scores(source: str, pred: np.ndarray, target: np.ndarray) -> dict[str, float]:
    given = ~(np.isnan(pred) | np.isnan(target))
    pred, target = pred[given], target[given]
    agreement = correlations(pred, target)
    found = {} if len(pred) == 0 else {"mae": float(np.abs(pred - target).mean())}
    plcc, srcc = agreement["plcc"], agreement["srcc"]
    if plcc is None or srcc is None:
        logger.warning("%s: no correlation over %d answers (too few, or all equal)", source, len(pred))
        return found
    return {**found, "plcc": plcc, "srcc": srcc}


def _rejected(status: np.ndarray) -> dict[str, float]:
    shares = {name.value: float(np.mean(status == number)) for number, name in enumerate(Status)}
    return {name: share for name, share in shares.items() if share > 0 and name != Status.OK.value}
