"""Cost of the batch rewards: each function at 1,024 rollouts, and the whole hook as a share of measured steps.

    python benchmarks/batch_reward.py                      # the functions alone, a few seconds
    python benchmarks/batch_reward.py --run runs/ranking   # also the cost that a training run has logged

``--run`` is the folder of a training run with ``reward.batch_reward``. ``batch_reward/seconds`` (reading from the
queue, decoding, the function and writing back) is divided by ``timing_s/step``. The first step, which includes the
start-up, is left out.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from omniq_verl.metric_log import read_metrics
from omniq_verl.rewards.batch import SHELF, BatchRewardSettings, Rollouts, batch_reward

IMAGES, ANSWERS, WORDS, REPEATS = 64, 16, 300, 5
PARTS = {"parts": [{"function": "visualquality_r1"}, {"function": "length_penalty", "weight": 0.5}]}


def rollouts() -> Rollouts:
    """A step of the full recipe: 64 images, 16 answers to each, 300 words in an answer, one in twenty unreadable."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(IMAGES), ANSWERS)
    target = rng.uniform(1, 5, IMAGES)[group]
    pred = np.clip(np.round(target + rng.normal(0, 0.7, len(group)), 2), 1, 5)
    pred[rng.random(len(group)) < 0.05] = np.nan
    words = np.array([f"word{number}" for number in range(500)])
    return Rollouts(
        texts=[" ".join(words[rng.integers(0, 500, WORDS)]) for _ in group],
        tokens=rng.integers(100, 1025, len(group)),
        groups=group,
        images=np.array([f"koniq/{number}" for number in group], dtype=object),
        sources=np.array(["koniq"] * len(group), dtype=object),
        tasks=np.array(["aesthetic"] * len(group), dtype=object),
        pred=pred,
        target=target,
        label_std=np.full(len(group), 0.6),
        low=np.ones(len(group)),
        high=np.full(len(group), 5.0),
    )


def seconds_of(name: str, batch: Rollouts) -> float:
    """The median of a few calls, without the first, which imports."""
    chosen = BatchRewardSettings(name, PARTS if name == "together" else {})
    batch_reward(batch, chosen)
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        batch_reward(batch, chosen)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def print_run(folder: Path) -> None:
    """The hook's share of the steps of a training run."""
    steps = [step for _, step in sorted(read_metrics(folder).items())[1:] if "batch_reward/seconds" in step]
    if not steps:
        raise SystemExit(f"{folder} has no second step with a batch reward. Fix: train with reward.batch_reward set")
    for step in steps:
        hook, whole = step["batch_reward/seconds"], step["timing_s/step"]
        print(f"step of {whole:.1f} s, hook {1000 * hook:.0f} ms: {hook / whole:.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a training run with a batch reward")
    args = parser.parse_args()
    batch = rollouts()
    for name in SHELF:
        print(f"{name}: {1000 * seconds_of(name, batch):.1f} ms for {len(batch)} rollouts")
    if args.run:
        print_run(args.run)


if __name__ == "__main__":
    main()
