"""Tables of images and scores: the reader of ``data_prep/manifest.py``, the plan of its rows, and at times the rows."""

import argparse
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from tempfile import mkdtemp

import pyarrow.parquet as pq
from data_builders import undrawn
from fuzz.mutation import TEXTS, Files, encoded, mutated_json, mutated_text
from fuzz.rules import check, one_line
from image_builders import saved, smooth
from rich.console import Console

from data_prep.manifest import MANIFEST, add_options, label_map, read
from omniq_verl.preparation.build import BuildOptions, Item, Source, plan, write
from omniq_verl.preparation.cli import Request
from omniq_verl.preparation.file_index import BadPath, FileIndex
from omniq_verl.preparation.label_tables import LabelFileError
from omniq_verl.preparation.shards import Planned, Reject
from omniq_verl.tasks import SCALES

_NAMES = ("a.png", "b.png", "deep/c.png", "d e.png", "\u00e9.png")
_LOW, _HIGH = 0.0, 100.0
_RARE = 0.02
"""Share of the inputs whose rows are written, too, which takes a hundred times as long."""


def make(rng: Random) -> Files:
    rows = [
        {"image": rng.choice(_NAMES), "score": rng.choice((0, 25, 99.5, 100, "50", "7.5", rng.uniform(-20, 120)))}
        | {
            "prompt": rng.choice(("a cat", 'two dogs, "one" red', *TEXTS)),
            "split": rng.choice(("train", "val", "test", "x")),
        }
        for _ in range(rng.choice((1, 2, 3, 5, 8)))
    ]
    options = {
        "task": rng.choice(("technical", "alignment")),
        "split": rng.random() < 0.5,
        "write": rng.random() < _RARE,
    }
    ending = rng.choice(("csv", "jsonl") * 5 + ("CSV", "JSONL", "json", "tsv", "txt"))
    name = f"manifest.{ending}"
    return {name: _table(rng, rows, name), "options.json": json.dumps(options).encode()}


def _table(rng: Random, rows: list[dict], name: str) -> bytes:
    if "json" in name.lower():
        rows = [mutated_json(rng, row) if rng.random() < 0.2 else row for row in rows]
        text = "\n".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) for row in rows)
    else:
        cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
        quoted = rng.random() < 0.5
        text = "\n".join(",".join(f'"{cell}"' if quoted else cell for cell in row) for row in cells)
    text = text + rng.choice(("", "\n", "\n\n", "\r\n"))
    return encoded(rng, mutated_text(rng, text) if rng.random() < 0.4 else text)


@cache
def _root() -> Path:
    """A folder of pictures, made once in a process."""
    root = Path(mkdtemp(prefix="fuzz-tables-"))
    for number, name in enumerate(_NAMES):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(saved(smooth(seed=number), "PNG"))
    return root


def run(files: Files, folder: Path) -> str:
    """The outcome, once its rows and rejects are counted."""
    (name,) = set(files) - {"options.json"}
    options = json.loads(files["options.json"])
    path = folder / name
    path.write_bytes(files[name])
    index = FileIndex(_root())
    items: list[Item] = []
    try:
        arguments = _arguments(options)
        source = _source(arguments, options["task"], _counted(Request(index, options["task"], path, arguments), items))
        planned, rejects = plan(source, index)
    except (LabelFileError, BadPath) as error:
        check(str(path.parent) in one_line(error), f"the file is not named: {error}")
        return "table rejected"
    rows = [row for some in planned.values() for row in some]
    check(
        len(rows) + len(rejects) == len(items), f"{len(rows)} rows and {len(rejects)} rejects of {len(items)} entries"
    )
    check(len(items) <= files[name].count(b"\n") + files[name].count(b"\r") + 1, "more entries than lines")
    for reject in rejects:
        check(bool(reject.reason.strip()), f"a reject without a reason: {reject}")
    for row in rows:
        _check_row(row, options)
    if options["write"] and rows:
        _check_written(source, planned, rejects, folder)
    return "rows" if rows else "rejects only"


def _counted(request: Request, items: list[Item]) -> Iterator[Item]:
    for item in read(request):
        items.append(item)
        yield item


def _arguments(options: dict) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    words = ["--data-source", "mine", "--low", str(_LOW), "--high", str(_HIGH), "--text-column", "prompt"]
    return parser.parse_args(
        [*words, *(["--split-column", "split"] if options["split"] else ["--test-fraction", "0.3"])]
    )


def _source(arguments: argparse.Namespace, task: str, items: Iterator[Item]) -> Source:
    return Source("mine", task, items, label_map(arguments), SCALES["1-5"], facts=dict(MANIFEST.facts))


def _check_row(planned: Planned, options: dict) -> None:
    row = planned.row
    check(1 <= row.score <= 5 and _LOW <= row.raw_score <= _HIGH, f"score {row.score} ({row.raw_score}) of a row")
    check(options["task"] != "alignment" or bool(row.text.strip()), "a row of alignment without its prompt")
    check(Path(planned.path).is_file(), f"no such file: {planned.path}")
    check(
        str(Path(planned.path).resolve()).startswith(str(_root().resolve())),
        f"a file outside of the root: {planned.path}",
    )
    check(row.split in ("train", "val", "test"), f"split {row.split!r}")


def _check_written(
    source: Source, planned: Mapping[str, Sequence[Planned]], rejects: Sequence[Reject], folder: Path
) -> None:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    with undrawn():
        card = write(source, planned, rejects, out, BuildOptions(), Console(file=io.StringIO()))
    rows = [row for file in card["files"] for row in pq.read_table(out / file).to_pylist()]
    check(len(rows) == card["rows"] == sum(map(len, planned.values())), f"{len(rows)} rows were written")
    lines = (out / "rejects.jsonl").read_text().splitlines() if rejects else []
    check(len(rejects) == 0 or len(json.loads(lines[0])) > 1, "rejects.jsonl cannot be read")
    for row in rows:
        check(1 <= row["extra_info"]["score"] <= 5 and len(row["images"]) == 1, f"row {row['extra_info']}")
