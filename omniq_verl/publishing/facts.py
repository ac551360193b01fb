"""What is known of a run that is to be published: model, recipe, data and evaluations, read from its own files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from omniq_verl.generation.model_folder import weights_mark
from omniq_verl.generation.run_folder import checkpoint_of
from omniq_verl.tasks import shown

_SETTINGS = (
    *("trainer.total_training_steps", "trainer.total_epochs", "data.train_batch_size", "data.max_prompt_length"),
    *("data.max_response_length", "actor_rollout_ref.rollout.n", "actor_rollout_ref.actor.optim.lr", "optim.lr"),
    *("actor_rollout_ref.actor.kl_loss_coef", "actor_rollout_ref.actor.ppo_epochs"),
)
"""Settings that a card shows, as far as the recipe has them."""
_TEXTS = ("data_source", "task", "target", "labels", "licence")
"""Facts that the cards of data sets state as texts."""
_LONGEST = 2**24
"""Bytes of a file of settings or figures that is read."""


class BadRun(ValueError):
    """A run, or an evaluation of it, that cannot be published."""


@dataclass(frozen=True)
class RunFacts:
    """Facts about the run whose checkpoint is published."""

    model: Path
    """Folder of the checkpoint, in Hugging Face's form."""
    weights: str
    """``generation.model_folder.weights_mark``."""
    recipe: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Sequence[Mapping[str, Any]] = ()
    """For each data file its ``name``, and from its card, if there is one: ``data_source``, ``task``, ``target`` and
    ``labels`` (what the scores are), ``label_map``, ``licence`` and ``rows``; of a mix ``parts`` with such facts."""
    base: str | None = None
    """End of the path, or name, of the model that the training began with."""


def read_run(run: Path) -> RunFacts:
    """Read a run's folder, or a model's alone.

    Raises:
        BadRun: there is no model in it.
    """
    model = Path(checkpoint_of(str(run)))
    weights = weights_mark(model) if (model / "config.json").is_file() else None
    if weights is None:
        raise BadRun(f"{run} holds no model with config.json and *.safetensors. Fix: give a run's or a model's folder")
    config = _yaml(run / "hydra" / "config.yaml")
    recipe = _at(_yaml(run / "hydra" / "hydra.yaml"), "hydra.job.config_name")
    base = _at(config, "actor_rollout_ref.model.path") or _at(config, "model.path")
    return RunFacts(
        model,
        weights,
        recipe if isinstance(recipe, str) else None,
        {name: value for name in _SETTINGS if (value := _at(config, name)) is not None},
        [_data_file(Path(path)) for path in _paths(_at(config, "data.train_files"))],
        "/".join(Path(base).parts[-3:]) if isinstance(base, str) else None,
    )


def _paths(found: Any) -> list[str]:
    return [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, str)]


def _data_file(path: Path) -> dict[str, Any]:
    card = _json(path.parent / "dataset_card.json")
    about = _mapping(card.get("files")).get(path.name)
    rows = about.get("rows") if isinstance(about, Mapping) else about
    parts = {name: _facts(part) for name, part in _mapping(card.get("parts")).items() if isinstance(part, Mapping)}
    return {"name": path.name, **_facts({**card, "rows": rows}), **({"parts": parts} if parts else {})}


def _facts(card: Mapping[str, Any]) -> dict[str, Any]:
    """Facts from the card of a data set, or from its part in the card of a mix."""
    texts = {name: card[name] for name in _TEXTS if isinstance(card.get(name), str)}
    rows = {"rows": card["rows"]} if isinstance(card.get("rows"), int) else {}
    mapped = _label_map(_mapping(card.get("label_map")))
    return {**texts, **rows, **({"label_map": mapped} if mapped else {})}


def _label_map(found: Mapping[str, Any]) -> str | None:
    """What ``LabelMap.card`` writes, in words."""
    named = [found.get(name) for name in ("raw", "scale")]
    ends = [one for one in named if isinstance(one, list) and len(one) == 2 and all(map(_is_number, one))]
    if len(ends) < len(named):
        return None
    raw, scale = (f"{low:g} to {high:g}" for low, high in ends)
    turned = " (lower is better)" if found.get("higher_is_better") is False else ""
    return f"from {raw}{turned} to {scale}"


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _at(config: Any, name: str) -> Any:
    for key in name.split("."):
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(_read(path))
    except Exception:  # PyYAML raises errors of every kind on values that its types do not allow
        return {}
    return found if isinstance(found, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read(path) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() and path.stat().st_size <= _LONGEST else b""


def read_evaluation(folder: Path, weights: str | None = None) -> dict[str, Any]:
    """What ``metrics.json`` of ``omniq eval`` holds.

    Args:
        folder: of the evaluation.
        weights: of the model it has to be of; None: of any.

    Raises:
        BadRun: there is none, or it is of other weights.
    """
    metrics = _json(folder / "metrics.json")
    if not isinstance(metrics.get("sets"), dict) or not isinstance(metrics.get("engine"), dict):
        raise BadRun(f"{folder} has no metrics.json of omniq eval. Fix: run `omniq eval ... --out {folder}`")
    if fault := _fault(metrics):
        raise BadRun(
            f"{folder}/metrics.json is not what omniq eval writes ({fault}). Fix: run `omniq eval ... --out {folder}`"
        )
    if weights is not None and metrics["engine"].get("weights") != weights:
        raise BadRun(
            f"{folder} was measured with weights other than those to be published. Fix: run `omniq eval` on this"
            " checkpoint, or name the checkpoint that was measured"
        )
    return metrics


def doubts(metrics: Mapping[str, Any]) -> list[str]:
    """What makes the figures of an evaluation doubtful: ``--limit`` and its warnings, without the folders of files."""
    limit, warnings = metrics.get("limit"), metrics.get("warnings") or []
    data = _mapping(_mapping(metrics.get("provenance")).get("data")).get("files") or []
    for path in (one["path"] for one in data):
        warnings = [warning.replace(path, Path(path).name) for warning in warnings]
    limited = [f"only the first {limit} rows of each file were measured"] if limit is not None else []
    return [*limited, *warnings]


_FIGURES = {"srcc": ("srcc", "plcc", "rmse"), "class_accuracy": ("class_accuracy", "level_accuracy")}
"""Figures that a set with the first of them has."""


def _fault(metrics: Mapping[str, Any]) -> str | None:
    """What cannot be shown of an evaluation; None if all can."""
    if not all(isinstance(metrics.get(name, ""), str) for name in ("model", "mode")) or "model" not in metrics:
        return "model or mode is no text"
    if not isinstance(metrics.get("limit"), int | None):
        return "limit is no number"
    if not _are(metrics.get("warnings") or [], str):
        return "warnings are no texts"
    data = _mapping(_mapping(metrics.get("provenance")).get("data")).get("files") or []
    if not _are(data, Mapping) or not _are([one.get("path") for one in data], str):
        return "the record of the data has no paths"
    for name, one in metrics["sets"].items():
        if not isinstance(one, dict) or not isinstance(one.get("task"), str):
            return f"the set {shown(name)} has no task"
        if not all(_is_number(one.get(count)) for count in ("scored", "images")):
            return f"the set {shown(name)} has no numbers of images"
        wanted = [key for first, keys in _FIGURES.items() if first in one for key in keys]
        if wrong := next((key for key in wanted if not _is_figure(one.get(key))), None):
            return f"{wrong} of the set {shown(name)} is no figure"
        if not isinstance(one.get("data_source"), str):
            return f"the set {shown(name)} has no data source"
    return None


def _are(found: Any, kind: type) -> bool:
    return isinstance(found, list) and all(isinstance(one, kind) for one in found)


def _is_figure(found: Any) -> bool:
    bounds = [found.get(name) for name in ("value", "low", "high")] if isinstance(found, dict) else [""]
    return all(one is None or _is_number(one) for one in bounds) and (bounds[1] is None) == (bounds[-1] is None)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
