"""Add scores to tables: new columns for a pandas table, and a batch function for ``datasets.Dataset.map``."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from omniq_verl.adapters.scale import AnyScorer
from omniq_verl.scoring.image_inputs import is_one, stored_image
from omniq_verl.scoring.scorer import Score

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("score", "level", "status", "std", "outside")
"""Fields of a ``Score`` that become columns."""
_NUMBERS = ("score", "std", "outside")


def score_table(
    table: "pd.DataFrame",
    scorer: AnyScorer,
    image: str = "image",
    task: str = "technical",
    prompt: str | None = None,
    prefix: str = "",
) -> "pd.DataFrame":
    """Return a copy of the table with the additional columns of ``COLUMNS``.

    Args:
        table: one row per image.
        scorer: any kind of scorer.
        image: column with images that ``Scorer.score`` accepts, or with the objects of ``bytes`` and ``path`` that
            Hugging Face files contain.
        task: a task with a score.
        prompt: column with the texts the images were made from.
        prefix: prefix for the names of the new columns.

    Raises:
        ValueError: a named column does not exist, or a new one already does.
    """
    columns = list(table.columns)
    for name in (image, *([prompt] if prompt else [])):
        if name not in columns:
            raise ValueError(f"the table has no column {name!r}. Fix: name one of {', '.join(map(str, columns))}")
        if columns.count(name) > 1:
            raise ValueError(f"the table has {columns.count(name)} columns {name!r}. Fix: rename all but one of them")
    _check_free(columns, prefix)
    images = [stored_image(one) for one in table[image]]
    scores = scorer.score(images, task=task, prompt=list(table[prompt]) if prompt else None)
    return table.assign(**_columns(scores, prefix))


def batch_scorer(
    scorer: AnyScorer, image: str = "image", task: str = "technical", prompt: str | None = None, prefix: str = ""
) -> Callable[[Mapping[str, Sequence[Any]]], dict[str, Any]]:
    """Return a function for ``datasets.Dataset.map(..., batched=True)``. The arguments are those of ``score_table``.

    A column of the type ``datasets.Image`` gives PIL images, or with ``decode=False`` the bytes of the files. An image
    without a score gets NaN, and an empty text as its level: ``map`` infers the column types from its first batch, so a
    batch of None would make it fail later.

    Raises:
        ValueError: raised by the returned function if the data set already has one of the new columns, such as labels
            named ``score``, which ``map`` would replace; or if it is called without ``batched=True``.
    """

    def add(batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        _check_free(list(batch), prefix)
        if is_one(batch[image]) or isinstance(batch[image], Mapping | None):
            raise ValueError("a single row came instead of a batch. Fix: call map with batched=True")
        images = [stored_image(one) for one in batch[image]]
        scores = scorer.score(images, task=task, prompt=list(batch[prompt]) if prompt else None)
        levels = [one.level or "" for one in scores]
        return {**_columns(scores, prefix), f"{prefix}level": levels}

    return add


def _check_free(columns: Sequence[Any], prefix: str) -> None:
    if there := [prefix + name for name in COLUMNS if prefix + name in columns]:
        raise ValueError(f"the table has a column {there[0]!r} already. Fix: give another prefix")


def _columns(scores: Sequence[Score], prefix: str) -> dict[str, Any]:
    """Return the new columns. Numbers are floats even if all are missing; pandas would make those an object column."""
    found: dict[str, Any] = {name: [getattr(one, name) for one in scores] for name in COLUMNS}
    return {prefix + name: np.array(one, np.float64) if name in _NUMBERS else one for name, one in found.items()}
