"""The batch reward for rollouts stored in TransferQueue.

The sampler calls it for each draw in the trainer's process, after the per-sample rewards and before the group-std
filter, the padding and the split over ranks.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from omniq_verl.filters.group_std import group_stds
from omniq_verl.rewards.batch import BatchRewardSettings, Rollouts, batch_reward
from omniq_verl.rewards.outside import number_of
from omniq_verl.tasks import read_scale, task_of

PART = "batch_reward"
"""Name of the result among the parts of a rollout's reward, which the filter's ``metric`` can refer to."""
_FIELDS = ["responses", "rm_scores", "extra_info"]


class Row(Protocol):
    """What the sampler knows about a rollout."""

    @property
    def id(self) -> str: ...

    @property
    def task(self) -> str: ...

    @property
    def data_source(self) -> str: ...

    @property
    def parts(self) -> dict[str, Any]: ...


def batch_reward_settings(config: DictConfig) -> BatchRewardSettings | None:
    """Return ``reward.batch_*`` of a composed configuration; None if there is no batch reward.

    Raises:
        ValueError: see ``BatchRewardSettings``.
    """
    name = OmegaConf.select(config, "reward.batch_reward")
    if name is None:
        return None
    settings = OmegaConf.select(config, "reward.batch_settings")
    plain: Any = OmegaConf.to_container(settings, resolve=True) if isinstance(settings, DictConfig) else settings
    weight = OmegaConf.select(config, "reward.batch_weight")
    return BatchRewardSettings(name, plain or {}, 1.0 if weight is None else weight)


class BatchReward:
    """Applies the batch reward of a recipe.

    Args:
        settings: settings from the recipe.
        decode: turns the token ids of several answers into their texts, without special tokens.
    """

    def __init__(self, settings: BatchRewardSettings, decode: Callable[[list[list[int]]], list[str]]):
        self.settings = settings
        self._decode = decode
        self._seconds, self._found, self._stds = 0.0, [], []

    def apply(self, batch: KVBatchMeta, rows: Sequence[Row], groups: Sequence[str]) -> None:
        """Add the batch reward to the rollouts' rewards, in TransferQueue and in ``parts`` of the rows.

        Args:
            batch: the rollouts of one draw.
            rows: what the sampler knows about each rollout, in the same order.
            groups: the group of each rollout, in the same order.

        Raises:
            ValueError: the function fails, or does not return one finite number per rollout.
        """
        started = time.monotonic()
        fields = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=_FIELDS)  # pyright: ignore[reportArgumentType]  verl sets it
        answers = [answer.tolist() for answer in fields["responses"]]
        infos: list[Any] = [getattr(info, "data", info) for info in fields["extra_info"]]
        rollouts = rollouts_of(rows, groups, self._decode(answers), [len(answer) for answer in answers], infos)
        found = batch_reward(rollouts, self.settings)
        self._add(rows, found, fields["rm_scores"])
        written = [
            {"rm_scores": _at_the_end(scores, row.parts["score"])}
            for scores, row in zip(fields["rm_scores"], rows, strict=True)
        ]
        tq.kv_batch_put(
            keys=batch.keys,
            partition_id=batch.partition_id,  # pyright: ignore[reportArgumentType]  verl sets it
            fields=list_of_dict_to_tensordict(written),
            tags=batch.tags,
        )
        self._found += found.tolist()
        self._stds += group_stds(found, rollouts.groups, int(rollouts.groups.max()) + 1).tolist()
        self._seconds += time.monotonic() - started

    def _add(self, rows: Sequence[Row], found: np.ndarray, scores: Sequence[torch.Tensor]) -> None:
        for row, value, own in zip(rows, found.tolist(), scores, strict=True):
            row.parts[PART] = value
            # A user's reward function may return just a number, without parts.
            row.parts["score"] = row.parts.get("score", float(own.sum())) + self.settings.weight * value

    def pop_metrics(self) -> dict[str, float]:
        """Return the metrics of all draws since the last call; empty if there was none."""
        if not self._found:
            return {}
        metrics = {
            "batch_reward/mean": float(np.mean(self._found)),
            "batch_reward/group_std": float(np.mean(self._stds)),
            "batch_reward/seconds": self._seconds,
        }
        self._seconds, self._found, self._stds = 0.0, [], []
        return metrics


def rollouts_of(
    rows: Sequence[Row],
    groups: Sequence[str],
    texts: Sequence[str],
    tokens: Sequence[int],
    infos: Sequence[Mapping[str, Any]],
) -> Rollouts:
    """Collect the columns of a draw for the batch reward.

    Args:
        rows: what the sampler knows about each rollout.
        groups: group of each rollout.
        texts: the answers.
        tokens: number of tokens of each answer.
        infos: ``extra_info`` of the rows.
    """
    names = sorted({name for row in rows for name in row.parts})
    parts = {name: _floats(row.parts.get(name) for row in rows) for name in names}
    none, scales = np.full(len(rows), math.nan), [_scale(info) for info in infos]
    # Groups are numbered by position, which is the same in every run. Their names are random, and ordering by them
    # would change the last bit of sums.
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return Rollouts(
        texts=list(texts),
        tokens=np.array(tokens, dtype=int),
        groups=np.array([numbers[group] for group in groups]),
        images=np.array([row.id for row in rows], dtype=object),
        sources=np.array([row.data_source for row in rows], dtype=object),
        tasks=np.array([row.task for row in rows], dtype=object),
        pred=parts.pop("pred", none),
        target=parts.pop("target", none),
        label_std=_floats(label_std(info) for info in infos),
        low=np.array([low for low, _ in scales]),
        high=np.array([high for _, high in scales]),
        parts=parts,
    )


def label_std(info: Mapping[str, Any]) -> float | None:
    """Return the standard deviation of the ratings behind a row's label, on the task's scale; None if it has none.

    Data preparation writes it into ``extra_info.details`` in the unit of the label file.
    """
    bounds: list[Any] = [info.get(name) for name in ("raw_low", "raw_high", "scale_low", "scale_high")]
    try:
        found = json.loads(info.get("details") or "{}").get("standard_deviation")
        raw_low, raw_high, low, high = map(float, bounds)
        value = float(found) * (high - low) / (raw_high - raw_low)
    except (AttributeError, TypeError, ValueError, ZeroDivisionError, RecursionError):
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _scale(info: Mapping[str, Any]) -> tuple[float, float]:
    """Return the ends of the row's scale, or of its task's scale if the row has none; NaN if neither has one."""
    try:
        scale = read_scale(info) or task_of(info).scale
    except ValueError:  # a user's reward function may need neither scale nor task
        scale = None
    return (math.nan, math.nan) if scale is None else (scale.low, scale.high)


def _floats(values: Any) -> np.ndarray:
    return np.array([number_of(value) for value in values])


def _at_the_end(scores: torch.Tensor, total: float) -> torch.Tensor:
    """Put a reward at the last token of the answer, like verl (agent_loop.py:146)."""
    written = torch.zeros_like(scores)
    written[-1] = total
    return written
