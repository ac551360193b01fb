"""Try a batch reward on made-up rollouts, before training depends on it."""

import numpy as np

from omniq_verl.rewards.batch.hook import BatchRewardSettings, batch_reward
from omniq_verl.rewards.batch.rollouts import Rollouts

_ANSWERS, _IMAGES = 4, 6


def probe_batch_reward(chosen: BatchRewardSettings) -> None:
    """Call a batch reward with the rollouts of two data sources, some without a score.

    Raises:
        ValueError: the function fails, does not return one finite number per rollout, or gives an answer a reward that
            depends on the order of the rollouts.
    """
    rollouts = made_up_rollouts()
    found = batch_reward(rollouts, chosen)
    order = np.random.default_rng(0).permutation(len(rollouts))
    again = batch_reward(rollouts.take(order), chosen)
    if not np.allclose(again, found[order], rtol=1e-6, atol=1e-9):
        raise ValueError(
            f"reward.batch_reward={chosen.function} gives an answer another reward when the rollouts come in another"
            " order. Fix: use `groups`, `sources` and `images` to tell which rollouts belong together"
        )


def made_up_rollouts() -> Rollouts:
    """Return rollouts of two data sources with three images each, four answers per image; every eighth has no score."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(_IMAGES), _ANSWERS)
    target = np.repeat([1.5, 3.0, 4.5, 2.0, 3.0, 3.0], _ANSWERS)
    pred = np.clip(np.round(target + rng.normal(0, 0.7, len(groups)), 1), 1, 5)
    pred[::8] = np.nan
    texts = [f"<think>word {number} word {number}</think><answer>{score}</answer>" for number, score in enumerate(pred)]
    return Rollouts(
        texts=texts,
        tokens=np.array([10 * len(text) for text in texts]),
        groups=groups,
        images=np.array([f"made/{group}" for group in groups], dtype=object),
        sources=np.array([f"source{group % 2}" for group in groups], dtype=object),
        tasks=np.array(["technical"] * len(groups), dtype=object),
        pred=pred,
        target=target,
        label_std=np.full(len(groups), 0.6),
        low=np.ones(len(groups)),
        high=np.full(len(groups), 5.0),
        parts={"format": np.ones(len(groups)), "accuracy": np.nan_to_num(pred) / 5},
    )
