"""The row: the common form of all data sets, in the format of verl's RL data set."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from omniq_verl.tasks import Scale, Task, find_task, task_on, text_fault

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_INFO = pa.struct(
    [
        ("index", pa.int64()),
        ("id", pa.string()),
        ("split", pa.string()),
        ("task", pa.string()),
        ("score", pa.float64()),
        ("scale_low", pa.float64()),
        ("scale_high", pa.float64()),
        ("raw_score", pa.float64()),
        ("raw_low", pa.float64()),
        ("raw_high", pa.float64()),
        ("text", pa.string()),
        ("details", pa.string()),
    ]
)
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""Lone UTF-16 surrogates, which JSON can contain but UTF-8 cannot encode."""
_EMBEDDED, _OUTSIDE = pa.struct([("bytes", pa.binary())]), pa.struct([("image", pa.string())])


def schema(embedded: bool) -> pa.Schema:
    """Return the schema that all data sets and tasks share, so that they can be mixed.

    Args:
        embedded: whether images are bytes; otherwise they are file names. verl uses the bytes wherever the key exists,
            even if it is empty (rl_dataset.py:335), so a row has only one of the two.
    """
    return pa.schema(
        [
            ("data_source", pa.string()),
            ("prompt", pa.list_(_MESSAGE)),
            ("images", pa.list_(_EMBEDDED if embedded else _OUTSIDE)),
            ("ability", pa.string()),
            ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
            ("extra_info", _INFO),
        ]
    )


@dataclass(frozen=True)
class Row:
    """One image, or the images of a comparison, with their label.

    ``raw_score`` is the number in the label file, within ``raw_bounds`` (both in the original unit). ``score`` is the
    same label on the task's scale, where higher is better. Rows of the degradation task have ``distortion`` and
    ``severity`` instead, and rows of a comparison have ``choice``.

    Raises:
        ValueError: the task has no reward for this label, or the text cannot be used in a prompt.
    """

    data_source: str
    row_id: str
    task: str
    split: str
    score: float | None = None
    raw_score: float | None = None
    raw_bounds: tuple[float, float] | None = None
    distortion: str | None = None
    severity: str | None = None
    choice: str | None = None
    """Which of the two images is better: ``first`` or ``second``."""
    scores: dict[str, float] | None = None
    """Labels of a task that asks for several numbers, by head; missing labels are left out."""
    scale: Scale | None = None
    """None selects the task's own scale."""
    text: str | None = None
    """The prompt an image was generated from, for tasks that ask about it."""
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        find_task(self.task, f"row {self.row_id}: task")
        if fault := self.asked.label_fault(self.truth):
            raise ValueError(f"row {self.row_id}: {fault}")
        bounds = self.raw_bounds
        if bounds and self.raw_score is None:
            raise ValueError(f"row {self.row_id}: it has raw_bounds but no raw_score. Fix: give both, or neither")
        if bounds and self.raw_score is not None and not bounds[0] <= self.raw_score <= bounds[1]:
            raise ValueError(f"row {self.row_id}: raw score {self.raw_score} is outside {bounds}")
        if self.asked.needs_text and not (self.text or "").strip():
            raise ValueError(f"row {self.row_id}: the task {self.task} needs the prompt of the image")
        if fault := text_fault(self.text or ""):
            raise ValueError(f"row {self.row_id}: its text {fault}")
        if _HALF_CHARACTER.search(self.row_id):
            raise ValueError(f"row {self.row_id}: its name contains half a character, which UTF-8 cannot encode")

    @property
    def asked(self) -> Task:
        """Return the task on this row's scale."""
        return task_on(self.task, self.scale)

    @property
    def truth(self) -> dict[str, Any]:
        """Return the label in the form that the reward expects."""
        if self.asked.asks_for == "choice":
            return {"choice": self.choice}
        if self.asked.asks_for == "scores":
            return {
                "scores": {
                    name: round(score, 6) if isinstance(score, float) else score
                    for name, score in (self.scores or {}).items()
                }
            }
        if self.asked.scale is None:
            return {"distortion_class": self.distortion, "severity": self.severity}
        return {"score": None if self.score is None else round(self.score, 6)}

    def record(self, index: int, *images: bytes | str) -> dict[str, Any]:
        """Return the row in the format of verl's ``RLHFDataset``.

        Args:
            index: the row index within the split.
            *images: the bytes or file names of the images that the task asks about, in the question's order.

        Raises:
            ValueError: the number of images is wrong.
        """
        if len(images) != self.asked.images:
            raise ValueError(f"row {self.row_id}: {self.task} is about {self.asked.images} images, not {len(images)}")
        scale, bounds = self.asked.scale, self.raw_bounds or (None, None)
        return {
            "data_source": self.data_source,
            "prompt": self.asked.messages(self.row_id, self.text),
            "images": [as_image(image) for image in images],
            "ability": self.task,
            "reward_model": {"style": "rule", "ground_truth": json.dumps(self.truth)},
            "extra_info": {
                "index": index,
                "id": self.row_id,
                "split": self.split,
                "task": self.task,
                "score": self.score,
                "scale_low": scale.low if scale else None,
                "scale_high": scale.high if scale else None,
                "raw_score": self.raw_score,
                "raw_low": bounds[0],
                "raw_high": bounds[1],
                "text": self.text,
                "details": json.dumps(self.details, sort_keys=True),
            },
        }


def as_image(image: bytes | str) -> dict[str, Any]:
    """Return an image in the form of verl 0.9.1 (rl_dataset.py:335): its bytes, or the file name under ``image``."""
    return {"bytes": image} if isinstance(image, bytes) else {"image": image}


def sft_record(row: Row, image: bytes | str, answer: str) -> dict[str, Any]:
    """Return the row with an answer to learn, in the format of verl's ``MultiTurnSFTDataset``."""
    messages = [*row.asked.messages(row.row_id, row.text), {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": [as_image(image)], "extra_info": {"id": row.row_id}}
