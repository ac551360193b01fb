"""Group images by a property of their rows, for ``--by``."""

import json
import math
from typing import Any

import pandas as pd

from omniq_verl.tasks import shown

COLUMNS = ("set", "data_source", "task", "id", "split", "target", "class_target", "level_target")
"""Columns that rows can be grouped by, besides the keys of their details. None of them depends on an answer."""
_FEW = 20
"""Up to this many rows, every row may form its own group, for example in a first try with --limit."""


def group_names(labels: pd.DataFrame, key: str) -> pd.Series:
    """Return the group of each row as text, with the index of ``labels``; None if a row has none.

    Equal numbers form one group, whether written 1 or 1.0.

    Args:
        labels: from ``answers.read_labels``, or with the same columns.
        key: one of ``COLUMNS``, or a key of the rows' details.

    Raises:
        ValueError: no row has the key, its value is a list or an object, its values have different types, or each row
            would form its own group. The message names a row.
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
            f"no row has {key!r} to group by; keys of the details: {', '.join(known) or 'none'}; columns:"
            f" {', '.join(COLUMNS)}"
        )
    if len(kinds) > 1:
        examples = " and ".join(f"{shown(value)} ({kind}, {row})" for kind, (row, value) in kinds.items())
        raise ValueError(f"--by {key}: its values have different types: {examples}. Fix: use one type in all rows")
    names = pd.Series([None if _is_missing(value) else _name(value) for value in values], labels.index, dtype=object)
    if names.count() > _FEW and names.nunique() == names.count():
        raise ValueError(
            f"--by {key}: all {names.count()} rows have different values, e.g. {shown(values[0])}, so no group has two"
            " images. Fix: group by a property that rows share"
        )
    return names


def in_order(names: pd.Series) -> list[str]:
    """Sort the groups: numerically if all are numbers, otherwise alphabetically."""
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
        f"--by {key}: the value in {row} is {what} ({shown(value)}). Fix: group by a key whose values are text,"
        " numbers, or true and false"
    )


def _name(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
