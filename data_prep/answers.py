"""Prepared training rows -> SFT data without reasoning, for the baselines of the papers' tables.

    omniq data answers --data 'data/omniquality_r/train*.parquet' --kind score --out runs/qwen_sft/sft.parquet

--kind score: the number alone (Qwen-SFT); level: one of five words (Q-Align); soft: the five words weighted by a soft
label, from the spread of the ratings if the data set has it (DeQA-Score). Train with the recipes
baselines/qwen_sft, baselines/q_align and baselines/deqa. Rows of validation and test splits are rejected.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from omniq_verl.baselines.answers import KINDS, records_of
from omniq_verl.console import counted
from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.row_refs import RowReader, learnable_rows
from omniq_verl.preparation.cli import override
from omniq_verl.preparation.file_index import given_path


def main(arguments: list[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    try:
        refs = learnable_rows([Path(file) for file in args.data])
        rows = RowReader(["prompt", "images", "extra_info"]).read(refs)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = args.out.with_name(f"{args.out.name}.part")
        with counted("answers", len(refs), Console(stderr=True)) as count:
            write_parquet(answered(rows, args.kind, count), unfinished)
        unfinished.replace(args.out)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print(override("data.train_files", [args.out]))
    print(f"{len(refs)} rows, kind {args.kind}")


def answered(rows: Iterable[dict[str, Any]], kind: str, count: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """The records of all rows, each of which is counted."""
    for row in rows:
        yield from records_of(row, kind)
        count()


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="prepared files; * is a wildcard")
    parser.add_argument("--kind", choices=KINDS, required=True, help="what the model learns: score, level or soft")
    parser.add_argument("--out", type=given_path, required=True, help="the parquet file to write")
    return parser


if __name__ == "__main__":
    main()
