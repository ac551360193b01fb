"""Write parquet files that are always complete under their final name."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from omniq_verl.data.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd

_ROWS_PER_GROUP = 512  # with images of tens of KB, a row group takes some ten MB of memory while it is written


def replace_table(path: Path, table: "pd.DataFrame") -> Path:
    """Write a table in one step, so a kill leaves the old file."""
    with atomic_path(path) as unfinished:
        table.to_parquet(unfinished)
    return path


def write_parquet(records: Iterable[dict[str, Any]], path: Path) -> int:
    """Stream records into one parquet file and return their number.

    The file appears under ``path`` only when it is complete. The schema is that of the first row group.

    Raises:
        ValueError: there are no records, or a record has columns that the first one lacks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    iterator, count, writer = iter(records), 0, None
    with atomic_path(path) as unfinished:
        while group := list(islice(iterator, _ROWS_PER_GROUP)):
            table = pa.Table.from_pylist(group, schema=writer.schema if writer else None)
            writer = writer or pq.ParquetWriter(unfinished, table.schema)
            _reject_other_columns(group, writer.schema.names, count)
            writer.write_table(table)
            count += len(group)
        if writer is None:
            raise ValueError(f"no rows to write to {path}")
        writer.close()
    return count


def _reject_other_columns(group: list[dict[str, Any]], columns: list[str], first: int) -> None:
    # pyarrow silently drops columns that the schema does not name.
    for number, record in enumerate(group, first):
        if unknown := sorted(set(record) - set(columns)):
            raise ValueError(f"record {number} has columns that the first one lacks: {unknown}")
