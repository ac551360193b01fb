"""Small prepared data sets, and the script that mixes them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.mix import main
from omniq_verl.data.rows import Row, schema
from omniq_verl.preparation.shards import PARQUET

TAKE = ("--take", "ava=50", "koniq=20", "dq495k=30")


def row_of(source: str, number: int, task: str = "technical") -> Row:
    row_id = f"{source}/{number:05d}.png"
    if task == "degradation":
        return Row(source, row_id, task, "train", distortion="blur", severity="slight")
    return Row(source, row_id, task, "train", 3.0, 50.0, (0.0, 100.0), text="a cat")


def part(
    folder: Path,
    rows: int,
    files: int = 1,
    task: str = "technical",
    source: str | None = None,
    size: int = 40,
    group: int = 7,
    embedded: bool = True,
) -> Path:
    """A prepared data set of a few random bytes per image, with row groups of a few rows."""
    folder.mkdir(parents=True)
    source, rng = source or folder.name, np.random.default_rng(len(folder.name))
    records = [
        row_of(source, number, task).record(number, rng.bytes(size) if embedded else f"/data/{number}.png")
        for number in range(rows)
    ]
    names = [f"train-{n:05d}-of-{files:05d}.parquet" for n in range(files)] if files > 1 else ["train.parquet"]
    card = {"data_source": source, "task": task, "files": {}, "options": {"mos": "raw"}}
    for name, numbers in zip(names, np.array_split(np.arange(rows), files), strict=True):
        with pq.ParquetWriter(folder / name, schema(embedded), **PARQUET) as writer:
            for start in range(0, len(numbers), group):
                chunk = [records[number] for number in numbers[start : start + group]]
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema(embedded)))
        card["files"][name] = {"rows": len(numbers), "xxh128": f"of {name}"}
    (folder / "dataset_card.json").write_text(json.dumps(card))
    return folder


def mixed(root: Path, out: Path, *options: str) -> tuple[dict, list[dict]]:
    """Card and rows of a run of the script."""
    main(["--root", str(root), "--out", str(out), *options])
    card = json.loads((out / "dataset_card.json").read_text())
    return card, [row for name in card["files"] for row in pq.read_table(out / name).to_pylist()]


def ids(rows: list[dict]) -> list[str]:
    return [row["extra_info"]["id"] for row in rows]


def rejected(*options: str) -> str:
    with pytest.raises(SystemExit) as finish_reason:
        main(list(options))
    return str(finish_reason.value)


def three_parts(folder: Path) -> Path:
    """Three data sets of two tasks, cut in different ways."""
    part(folder / "ava", 100, files=3)
    part(folder / "koniq", 40, group=100)
    part(folder / "dq495k", 30, files=2, task="degradation")
    return folder
