"""Prepare the quickstart's photographs for scores without reasoning: same crops and labels, no <think>.

    python -m omniq_verl.pipeline.made.without_reasoning --data runs/findings/data --out runs/findings/direct

It reads train, val, test and sft.parquet of `data_prep/photo_distortions.py` and writes files of the same names.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from omniq_verl.data.parquet import write_parquet
from omniq_verl.pipeline.made.options import crops_arguments
from omniq_verl.tasks import task_on

TASK = "technical_direct"


def asked(record: dict[str, Any]) -> dict[str, Any]:
    """A prepared row whose question asks for the number alone."""
    info = record["extra_info"]
    prompt = task_on(TASK, None).messages(info["id"], None)
    return {**record, "prompt": prompt, "ability": TASK, "extra_info": {**info, "task": TASK}}


def direct_record(record: dict[str, Any]) -> dict[str, Any]:
    """A row to learn from without the reasoning of its answer.

    Raises:
        ValueError: the answer has no reasoning.
    """
    row_id, answer = record["extra_info"]["id"], record["messages"][-1]["content"]
    _, end, rest = answer.partition("</think>")
    if not end:
        raise ValueError(f"row {row_id}: its answer has no </think>. Fix: give files of data_prep/photo_distortions.py")
    turns = [*task_on(TASK, None).messages(row_id, None), {"role": "assistant", "content": rest}]
    return {**record, "messages": turns}


def read(data: Path, split: str) -> Iterator[dict[str, Any]]:
    """The rows of one of the files."""
    yield from pq.read_table(data / f"{split}.parquet").to_pylist()


def prepare(data: Path, out: Path) -> None:
    """Write all four files."""
    for split in ("train", "val", "test"):
        write_parquet(map(asked, read(data, split)), out / f"{split}.parquet")
    write_parquet(map(direct_record, read(data, "sft")), out / "sft.parquet")


def main() -> None:
    args = crops_arguments(__doc__)
    prepare(args.data, args.out)


if __name__ == "__main__":
    main()
