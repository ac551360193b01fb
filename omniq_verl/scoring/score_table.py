"""Scores of many files into one table: each batch is kept as it comes, and a killed run goes on."""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from omniq_verl.console import progress_bar
from omniq_verl.data.files import whole_text
from omniq_verl.data.names import is_utf8, shown_name
from omniq_verl.generation.spec import LOCAL_KINDS, EngineSpec
from omniq_verl.generation.store import Store, read_store
from omniq_verl.scoring.scorer import Score, Scorer
from omniq_verl.tasks import outside_marks

_AT_ONCE = 16
_WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".jsonl": lambda table, path: table.to_json(path, orient="records", lines=True),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}


def score_files(
    spec: EngineSpec,
    files: Sequence[Path],
    out: Path,
    console: Console,
    asked: dict[str, Any],
    max_tokens: int = 1024,
    seed: int = 0,
) -> int:
    """Score files by a reasoning model and write a table; see ``write_scores``.

    Args:
        spec: which model, run by what.
        files: images, and what turns out to be none.
        out: .csv, .jsonl or .parquet.
        console: for progress and a summary.
        asked: of ``Scorer.batches``: task, prompt, samples, temperature, scale.
        max_tokens: longest answer.
        seed: of sampled answers.
    """
    scale = asked.get("scale")
    config = {**asked, "scale": scale and asdict(scale), **spec.identity(), "max_tokens": max_tokens}
    if marks := outside_marks([asked.get("task", "technical")]):
        config["outside_tasks"] = marks

    def batches(left: Sequence[Path]) -> Iterable[list[Score]]:
        # Our own engines gain nothing by a longer list, and the bar moves by one of these.
        batch = {"batch": _AT_ONCE} if spec.kind in LOCAL_KINDS else {}
        return Scorer(spec, max_tokens=max_tokens, seed=seed, **batch).batches(left, **asked)

    return write_scores(files, out, console, {**config, "seed": seed}, batches)


def write_scores(
    files: Sequence[Path],
    out: Path,
    console: Console,
    config: Mapping[str, Any],
    batches: Callable[[Sequence[Path]], Iterable[list[Score]]],
    columns: Sequence[str] | None = None,
) -> int:
    """Write a table of scores, one line a file, in their order.

    While it runs, what is done lies in the folder ``<out>.unfinished``, which goes at the end.

    Args:
        files: images, and what turns out to be none.
        out: .csv, .jsonl or .parquet.
        console: for progress and a summary.
        config: all that a score depends on: a run that was killed goes on with the same only.
        batches: scores of the files that are left, some at a time; not called if there are none.
        columns: of the table; None: all of a ``Score``.

    Returns:
        How many files have a score.

    Raises:
        ValueError: another kind of table, one that exists already, or one begun under other settings; a file that is
            named twice.
    """
    _check_out(out)
    check_each_once(files)
    unfinished = out.with_name(f"{out.name}.unfinished")
    with Store(unfinished, config) as store:
        left = [file for file in files if shown_name(file) not in store.keys]
        with progress_bar(console, "images") as bar:
            task = bar.add_task("scoring", total=len(files), completed=len(files) - len(left))
            for scores in batches(left) if left else ():
                store.add({"key": score.image, **asdict(score)} for score in scores)
                bar.update(task, advance=len(scores))
        found = {record["key"]: _whole(record) for record in read_store(unfinished)}
    table = pd.DataFrame([found[shown_name(file)] for file in files]).drop(columns="key")
    _WRITERS[out.suffix.lower()](table if columns is None else table[list(columns)], out)
    shutil.rmtree(unfinished)
    scored = int((table.status == "ok").sum())
    _summarise(table, scored, out, console)
    return scored


def check_each_once(files: Sequence[Path]) -> None:
    """A file that is named twice would be one line of a table, or two alike.

    Raises:
        ValueError: one is; the message names it.
    """
    seen: dict[str, Path] = {}
    for file in files:
        other = seen.setdefault(os.path.abspath(file), file)
        if other is not file:
            raise ValueError(
                f"{file} is named twice (also as {other}). Fix: name each image once, by file or by folder"
            )


def _check_out(out: Path) -> None:
    if out.suffix.lower() not in _WRITERS:
        raise ValueError(f"{out}: tables are written as {', '.join(_WRITERS)}")
    if not is_utf8(out):
        raise ValueError(f"{shown_name(out)}: the name of a table is UTF-8. Fix: give another name")
    if out.exists():
        raise ValueError(f"{out} exists already. Fix: give another name, or move it away")
    if not out.parent.is_dir():
        raise ValueError(f"{out.parent}: no such folder")


def _whole(record: dict[str, Any]) -> dict[str, Any]:
    return {key: whole_text(cell) if isinstance(cell, str) else cell for key, cell in record.items()}


def _summarise(table: pd.DataFrame, scored: int, out: Path, console: Console) -> None:
    for one in table[table.status != "ok"].itertuples():
        console.print(f"{one.image}: {one.error or one.status}", style="red", markup=False, soft_wrap=True)
    console.print(f"{scored} of {len(table)} files scored: {out}", markup=False, soft_wrap=True)
