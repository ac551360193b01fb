"""SFT rows whose answer is only the label, as for "Qwen-SFT" in RALI's table A.1."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.row_refs import RowReader, learnable_rows
from omniq_verl.rewards.parsing import SCORE_KEY
from omniq_verl.tasks import Task, task_of


def label_answer(task: Task, score: float) -> str:
    """Return the answer to learn, with two decimals as Q-Insight's prompt demands.

    Args:
        task: a task without reasoning.
        score: label on the task's scale.
    """
    number = f"{score:.2f}"
    return f"<answer>{json.dumps({SCORE_KEY: float(number)}) if task.answer_format == 'json' else number}</answer>"


def write_sft_data(files: Sequence[Path], out: Path) -> int:
    """Convert prepared rows of tasks without reasoning to rows for verl's SFT trainer. Returns the number of rows.

    Args:
        files: prepared training files.
        out: parquet file to write.

    Raises:
        HeldOutRows: a file contains rows of a validation or test split.
        ValueError: a task asks for reasoning or does not ask for a score, or a file cannot be read.
    """
    refs = learnable_rows(files)
    for ref in refs:
        if (task := task_of(ref.info)).reasoning:
            raise ValueError(
                f"{ref.file}: the task {task.name} asks for reasoning, which a label does not have. Fix:"
                f" prepare the rows with a task that asks for none, such as --task {task.name}_direct"
            )
    return write_parquet(_records(refs), out)


def _records(refs: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for ref, row in zip(refs, RowReader(["prompt", "images"]).read(refs), strict=True):
        answer = {"role": "assistant", "content": label_answer(task_of(ref.info), ref.info["score"])}
        turns: list[Mapping[str, str]] = [*row["prompt"], answer]
        yield {"messages": turns, "images": row["images"], "extra_info": {"id": str(ref.info["id"])}}
