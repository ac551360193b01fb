"""The row: what every data set becomes before training, in the format verl's RL data set reads."""

import json
from dataclasses import dataclass, field
from typing import Any

from omniq_verl.tasks import TASKS


@dataclass(frozen=True)
class Row:
    """One image with its score.

    ``raw_score`` is the number of the label file, within ``raw_bounds`` (both in the label's own unit,
    higher is better); ``score`` is the same on the task's scale.
    """

    data_source: str
    row_id: str
    task: str
    image: bytes
    score: float
    raw_score: float
    raw_bounds: tuple[float, float]
    split: str
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"row {self.row_id}: unknown task {self.task!r}; known: {sorted(TASKS)}")
        if fault := TASKS[self.task].label_fault({"score": self.score}):
            raise ValueError(f"row {self.row_id}: {fault}")
        if not self.raw_bounds[0] <= self.raw_score <= self.raw_bounds[1]:
            raise ValueError(f"row {self.row_id}: raw score {self.raw_score} lies outside of {self.raw_bounds}")

    def record(self, index: int) -> dict[str, Any]:
        """The row as verl's ``RLHFDataset`` reads it; ``index`` is its number within the file."""
        task = TASKS[self.task]
        return {
            "data_source": self.data_source,
            "prompt": task.messages(self.row_id),
            "images": [{"bytes": self.image}],
            "ability": self.task,
            "reward_model": {"style": "rule", "ground_truth": json.dumps({"score": round(self.score, 6)})},
            "extra_info": {
                "index": index,
                "id": self.row_id,
                "split": self.split,
                "task": self.task,
                "raw_score": float(self.raw_score),
                "raw_low": float(self.raw_bounds[0]),
                "raw_high": float(self.raw_bounds[1]),
                "score": float(self.score),
                "scale_low": task.scale.low,
                "scale_high": task.scale.high,
                **self.details,
            },
        }


def sft_record(row: Row, answer: str) -> dict[str, Any]:
    """The row with an answer to learn, as verl's ``MultiTurnSFTDataset`` reads it."""
    messages = [*TASKS[row.task].messages(row.row_id), {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": [{"bytes": row.image}], "extra_info": {"id": row.row_id}}
