"""Rows whose answer is the label alone: what the row "Qwen-SFT" of RALI's table A.1 learns from."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.row_refs import RowReader, learnable_rows
from omniq_verl.rewards.parsing import SCORE_KEY
from omniq_verl.tasks import Task, task_of


def label_answer(task: Task, score: float) -> str:
    """The answer to learn, with two decimals as Q-Insight's prompt asks for.

    Args:
        task: without reasoning.
        score: label on the task's scale.
    """
    number = f"{score:.2f}"
    return f"<answer>{json.dumps({SCORE_KEY: float(number)}) if task.answer_format == 'json' else number}</answer>"


def write_sft_data(files: Sequence[Path], out: Path) -> int:
    """Write prepared rows of tasks without reasoning as rows for verl's SFT trainer; returns their number.

    Args:
        files: prepared train files.
        out: parquet file.

    Raises:
        HeldOutRows: a file holds rows of a validation or test split.
        ValueError: a task asks for reasoning or for no score, or a file cannot be read.
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
