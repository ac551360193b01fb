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


async def report_failure(key: str, row: str, source: Any, error: Exception) -> None:
    """Tell the trainer that a rollout failed.

    Args:
        key: key of the rollout.
        row: id of its row.
        source: ``data_source`` of its row.
        error: the error that ended it.
    """
    tag = {
        "row": row,
        "source": str(source),
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
    found = [Failure(tag["row"], tag["source"], tag["error"], tuple(tag["forbidden"])) for tag in tags.values()]
    return sorted(found, key=lambda one: (one.source, one.row, one.error))


def save_failures(failures: Sequence[Failure], step: int, folder: Path) -> None:
    """Append failures to the run's file, and print one line for each row."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / FILE_NAME, "a", encoding="utf-8") as file:
        file.writelines(json.dumps({"step": step, **asdict(one)}) + "\n" for one in failures)
    for row, one in {(one.source, one.row): one for one in failures}.items():
        number = sum((each.source, each.row) == row for each in failures)
        print(f"step {step}: {number} rollouts of row {one.row} of {one.source} failed: {one.error}", flush=True)
