"""Failed rollouts, reported by the agent loops and collected by the trainer.

verl logs the error of a failed rollout in the agent loop's process and tells the trainer only that it failed. Here
row and reason are sent through TransferQueue, as tags in a separate partition.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import transfer_queue as tq

FILE_NAME = "failed_rollouts.jsonl"
"""Name of the file in the run's folder; it has a line for each failed rollout."""
_PARTITION = "omniq_failures"


@dataclass(frozen=True)
class Failure:
    """A rollout that gave no answer."""

    row: str
    """The row's id, ``extra_info.id``."""
    source: str
    error: str
    forbidden: tuple[int, ...] = ()
    """Banned token ids that the engine sampled."""
    reward: bool = False
    """Whether there is an answer, but the reward function failed for it."""


class RewardFailed(RuntimeError):
    """The reward function failed for some answers. Going on without them would train on a biased choice of answers."""


async def report_failure(key: str, row: str, source: Any, error: Exception, reward: bool = False) -> None:
    """Tell the trainer that a rollout failed.

    Args:
        key: key of the rollout.
        row: id of its row.
        source: ``data_source`` of its row.
        error: the error that ended it.
        reward: whether the reward function failed, and not the rollout itself.
    """
    tag = {
        "row": row,
        "source": str(source),
        "reward": reward,
        "error": f"{type(error).__name__}: {error}"[:1000],
        "forbidden": list(getattr(error, "tokens", ())),
    }
    await tq.async_kv_put(key=key, partition_id=_PARTITION, tag=tag)


def collect_failures() -> list[Failure]:
    """The failures reported since the last call, sorted by row."""
    tags = (tq.kv_list(_PARTITION) or {}).get(_PARTITION) or {}
    if not tags:
        return []
    tq.kv_clear(keys=list(tags), partition_id=_PARTITION)
    found = [
        Failure(tag["row"], tag["source"], tag["error"], tuple(tag["forbidden"]), tag["reward"])
        for tag in tags.values()
    ]
    return sorted(found, key=lambda one: (one.source, one.row, one.error))


def save_failures(failures: Sequence[Failure], step: int, folder: Path) -> None:
    """Append failures to the run's file, and print one line for each row."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / FILE_NAME, "a", encoding="utf-8") as file:
        file.writelines(json.dumps({"step": step, **asdict(one)}) + "\n" for one in failures)
    for row, one in {(one.source, one.row): one for one in failures}.items():
        number = sum((each.source, each.row) == row for each in failures)
        print(f"step {step}: {number} rollouts of row {one.row} of {one.source} failed: {one.error}", flush=True)


def check_rewards(failures: Sequence[Failure]) -> None:
    """Stop where the reward function failed.

    Raises:
        RewardFailed: it did; the message has the first row and the function's error.
    """
    if failed := [one for one in failures if one.reward]:
        raise RewardFailed(
            f"the reward function failed for {len(failed)} answers, first for one to {failed[0].row} of"
            f" {failed[0].source}: {failed[0].error}. {FILE_NAME} in the run's folder has all of them. Fix: let the"
            " function return a number for every answer, e.g. 0 for one that it cannot judge, and start the same"
            " command again"
        )
