"""The weights that validated best are kept besides the last checkpoints, which verl deletes one after the other.

``<run>/best_checkpoint.json`` names them, and ``<run>/best/global_step_N`` holds them in Hugging Face's format. The
files there are hard links to those in ``global_step_N/actor/huggingface``, so they cost no space while verl keeps that
checkpoint, and stay when verl deletes it. A new best is complete in its folder before the file names it, and the
previous one is deleted only afterwards: a kill at any moment leaves one of the two.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omniq_verl.data.files import replace_text
from omniq_verl.generation.model_folder import check_model_folder
from omniq_verl.generation.run_folder import RECORD, best_of, read_record

METRICS = ("srcc", "plcc", "level_accuracy", "class_accuracy", "choice_accuracy")
"""Metrics by which checkpoints are compared; of all of them a greater value is better."""
OFF = "off"
_FOLDER = "best"
_OF_SCORES = ("srcc", "plcc")
LEAST_SCORED = 0.5
"""Share of a data source's answers that must have a score: the correlation of a few says nothing about the policy."""


def best_checkpoint(run: str | Path) -> Path:
    """The folder of the weights that validated best, for the next stage's ``actor_rollout_ref.model.path``.

    Args:
        run: ``trainer.default_local_dir`` of a GRPO run.

    Raises:
        ValueError: the run has kept none, or its folder has lost it.
    """
    run = Path(run).expanduser()
    record = read_record(run)
    if "model" not in record:
        raise ValueError(
            f"{run}: it has no best checkpoint ({RECORD}). Fix: train with trainer.v1.keep_best=srcc and with"
            " trainer.save_freq and trainer.test_freq above 0, or name a checkpoint (global_step_N/actor/huggingface)"
        )
    return best_of(run, record)


def mean_of(metrics: Mapping[str, float], metric: str) -> float | None:
    """The mean of a validation's metric over its data sources, or None; ``why_not_compared`` has the reasons.

    Where all tasks ask for several numbers, it is the mean over these numbers.

    Args:
        metrics: of ``validation_metrics``.
        metric: of ``METRICS``.
    """
    return None if why_not_compared(metrics, metric) else _mean(metrics, metric)


def _mean(metrics: Mapping[str, float], metric: str) -> float | None:
    prefix = "val-core/mean/"
    if (value := metrics.get(prefix + metric)) is not None:
        return float(value)
    of_heads = [value for key, value in metrics.items() if key.startswith(prefix) and key.endswith(f"/{metric}")]
    return sum(of_heads) / len(of_heads) if of_heads else None


def why_not_compared(metrics: Mapping[str, float], metric: str) -> str | None:
    """Why a validation cannot be compared with others; None if it can.

    A mean over fewer data sources or over few answers would be another quantity.

    Args:
        metrics: of ``validation_metrics``.
        metric: of ``METRICS``.
    """
    value = _mean(metrics, metric)
    if value is None or value != value:
        return f"it has no {metric}"
    for key, lost in metrics.items():
        if key.endswith("/lost") and lost == metrics.get(f"{key.removesuffix('/lost')}/answers"):
            return f"every rollout of {key.removeprefix('val-aux/').removesuffix('/lost')} failed"
    if metric not in _OF_SCORES:
        return None
    for key, scored in metrics.items():
        if not key.endswith("/scored"):
            continue
        name = key.removeprefix("val-aux/").removesuffix("/scored")  # a source, or one of the numbers of a source
        if f"val-core/{name}/{metric}" not in metrics:
            return f"{name} has no {metric}"
        answers = metrics.get(f"val-aux/{name}/answers", metrics.get(f"val-aux/{name.rpartition('/')[0]}/answers", 0))
        if scored < LEAST_SCORED * answers:
            return f"only {scored:.0f} of {answers:.0f} answers to {name} have a score"
    return None


def keep_best(run: Path, step: int, metrics: Mapping[str, float], metric: str) -> str | None:
    """Keep the weights of a step that has just been validated, if it is the best so far and has a checkpoint.

    Args:
        run: ``trainer.default_local_dir``.
        step: that was validated; its checkpoint was saved before, as verl does.
        metrics: of the validation.
        metric: of ``METRICS``.

    Returns:
        A line for the log; None where there is nothing to tell.
    """
    record: dict[str, Any] = read_record(run)
    value = mean_of(metrics, metric)
    if record.get("metric") != f"val-core/mean/{metric}":
        record = {key: record[key] for key in ("model",) if key in record} | {"metric": f"val-core/mean/{metric}"}
    record["validated"] = {**record.get("validated", {}), str(step): value}
    best = record.get("value")
    source = run / f"global_step_{step}" / "actor" / "huggingface"
    message = None
    if value is None and step:
        message = f"step {step} is not compared with other checkpoints: {why_not_compared(metrics, metric)}"
    if value is not None and (best is None or value > best) and step:
        message = f"step {step} validates best ({metric} {value:.4f})"
        try:
            _check_source(source)
            record |= {"step": step, "value": value, "model": _link(run, step, source)}
        except (ValueError, OSError) as error:  # a full disk must not end the training
            message += f" and cannot be kept: {error}"
    try:
        replace_text(run / RECORD, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        return f"step {step}: {run / RECORD} cannot be written, so it still names the previous best: {error}"
    _clean(run, record)
    return message


def _check_source(folder: Path) -> None:
    """Is this a model to keep?

    Raises:
        ValueError: it is not there or not whole.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no {folder}. Fix: make trainer.test_freq a multiple of trainer.save_freq")
    check_model_folder(str(folder))


def _link(run: Path, step: int, source: Path) -> str:
    """A complete copy of the folder below ``best``; returns its name, relative to the run."""
    unfinished = run / _FOLDER / ".part"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished, copy_function=_link_or_copy)
    target = run / _FOLDER / f"global_step_{step}"
    while target.exists():  # of the same step, before the run was set back to an earlier one
        target = target.with_name(f"{target.name}_again")
    os.rename(unfinished, target)
    return str(target.relative_to(run))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _clean(run: Path, record: Mapping[str, Any]) -> None:
    """Delete what is not named: former bests, and what a kill has left."""
    for folder in (run / _FOLDER).glob("*"):
        if str(folder.relative_to(run)) != record.get("model"):
            shutil.rmtree(folder, ignore_errors=True)


def part_from_best(run: Path, step: int) -> None:
    """Before a step is saved anew: files that the best checkpoint shares lose their old name, so that they are not
    overwritten. A run that was set back to an earlier step comes to such a step again."""
    folder = run / f"global_step_{step}" / "actor" / "huggingface"
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.is_file() and path.stat().st_nlink > 1:
            path.unlink()
