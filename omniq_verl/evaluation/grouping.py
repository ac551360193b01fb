"""Groups of images by something that is known of their rows, for ``--by``."""

import json
import math
from typing import Any

import pandas as pd

from omniq_verl.tasks import shown

COLUMNS = ("set", "data_source", "task", "id", "split", "target", "class_target", "level_target")
"""What a row can be grouped by besides the keys of its details. Nothing that depends on an answer is among them."""
_FEW = 20
"""Up to so many rows each may be a group of its own, as in a first try with --limit."""


def group_names(labels: pd.DataFrame, key: str) -> pd.Series:
    """The group of each row as text, by the index of ``labels``; None where a row has none.

    Numbers that are equal make one group, whether they are written 1 or 1.0.

    Args:
        labels: of ``judging.read_labels``, or with its columns.
        key: one of ``COLUMNS`` or a key of the rows' details.

    Raises:
        ValueError: no row has the key; it is a list or an object; it is of several kinds; or each row would be a group
            of its own. The message names a row.
    """
    values = labels[key].tolist() if key in COLUMNS else [_details(text).get(key) for text in labels.details]
    keys = labels["key"].tolist() if "key" in labels else labels.index.tolist()
    kinds: dict[str, tuple[str, Any]] = {}
    for row, value in zip(keys, values, strict=True):
        if not _is_missing(value):
            kinds.setdefault(_kind(key, row, value), (row, value))
    if not kinds:
        known = sorted({name for text in labels.details.head(1000) for name in _details(text)})
        raise ValueError(
            f"no row has {key!r} to make groups by; its details have {', '.join(known) or 'nothing'}. Columns:"
            f" {', '.join(COLUMNS)}"
        )
    if len(kinds) > 1:
        said = " and ".join(f"{shown(value)} ({kind}, {row})" for kind, (row, value) in kinds.items())
        raise ValueError(f"--by {key}: its values are of several kinds: {said}. Fix: write one kind in all rows")
    names = pd.Series([None if _is_missing(value) else _name(value) for value in values], labels.index, dtype=object)
    if names.count() > _FEW and names.nunique() == names.count():
        raise ValueError(
            f"--by {key}: all {names.count()} rows have values of their own, e.g. {shown(values[0])}, so that no group"
            " has two images. Fix: group by something that rows have in common"
        )
    return names


def in_order(names: pd.Series) -> list[str]:
    """The groups there are: by size where all are numbers, otherwise in the order of the alphabet."""
    found = sorted(names.dropna().unique())
    try:
        return sorted(found, key=float)
    except ValueError:
        return found


def _details(text: object) -> dict[str, Any]:
    return json.loads(text) if isinstance(text, str) else {}


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _kind(key: str, row: str, value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    what = "a list" if isinstance(value, list) else "an object"
    raise ValueError(
        f"--by {key}: it is {what} in {row} ({shown(value)}). Fix: group by a key whose values are text, numbers, or"
        " true and false"
    )


def _name(value: object) -> str:
    is_whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if is_whole else str(value)
