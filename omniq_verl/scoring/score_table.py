"""Score many files into one table. Each batch is saved immediately, and a killed run resumes."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console

from omniq_verl.console import progress_bar
from omniq_verl.data.files import atomic_path, file_digest, whole_text
from omniq_verl.data.names import is_utf8, shown_name
from omniq_verl.generation.spec import LOCAL_KINDS, EngineSpec
from omniq_verl.generation.store import Store, read_store
from omniq_verl.scoring.scorer import Score, Scorer
from omniq_verl.tasks import outside_marks

if TYPE_CHECKING:
    from omniq_verl.families.family import Family

_AT_ONCE = 16
_WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".jsonl": lambda table, path: table.to_json(path, orient="records", lines=True, double_precision=15),
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
    mode: str = "reason",
    family: "Family | None" = None,
) -> int:
    """Score files with a reasoning model and write a table; see ``write_scores``.

    Args:
        spec: model and engine.
        files: image files; files that are not images are reported.
        out: the table to write: .csv, .jsonl or .parquet.
        console: for progress and a summary.
        asked: arguments of ``Scorer.batches``: task, prompt, samples, temperature, scale.
        max_tokens: maximum length of an answer.
        seed: seed of sampled answers.
        mode: see ``Scorer``.
        family: see ``Scorer``.
    """
    scale = asked.get("scale")
    config = {**asked, "scale": scale and asdict(scale), **spec.identity(), "max_tokens": max_tokens}
    if mode != "reason":
        config["mode"] = mode
    if family is not None:
        config["family"] = family.name
    if marks := outside_marks([asked.get("task", "technical")]):
        config["outside_tasks"] = marks

    def batches(left: Sequence[Path]) -> Iterator[list[Score]]:
        # Larger batches do not speed up our own engines, and the progress bar advances by one batch.
        batch: dict[str, Any] = {"batch": _AT_ONCE} if spec.kind in LOCAL_KINDS else {}
        with Scorer(spec, max_tokens=max_tokens, seed=seed, mode=mode, family=family, **batch) as scorer:
            yield from scorer.batches(left, **asked)

    return write_scores(files, out, console, {**config, "seed": seed}, batches)


def write_scores(
    files: Sequence[Path],
    out: Path,
    console: Console,
    config: Mapping[str, Any],
    batches: Callable[[Sequence[Path]], Iterable[list[Score]]],
    columns: Sequence[str] | None = None,
) -> int:
    """Write a table of scores with one line per file, in order.

    During the run, finished scores are kept in the folder ``<out>.unfinished``. It is deleted at the end.

    Args:
        files: image files; files that are not images are reported.
        out: the table to write: .csv, .jsonl or .parquet.
        console: for progress and a summary.
        config: everything a score depends on; a killed run only resumes with the same values.
        batches: scores the remaining files, in batches; not called if there are none.
        columns: columns of the table; None: all fields of a ``Score``.

    Returns:
        The number of files with a score.

    Raises:
        ValueError: the table format is not supported, the table already exists or was started with other settings, a
            file is named twice, or a file has changed since it was scored in a killed run.
    """
    _check_out(out)
    check_each_once(files)
    unfinished = out.with_name(f"{out.name}.unfinished")
    with Store(unfinished, config) as store:
        _check_unchanged(files, unfinished)
        left = [file for file in files if shown_name(file) not in store.keys]
        marks = {shown_name(file): _mark_of(file) for file in left}
        with progress_bar(console, "images") as bar:
            task = bar.add_task("scoring", total=len(files), completed=len(files) - len(left))
            for scores in batches(left) if left else ():
                store.add({"key": one.image, "mark": marks[one.image], **asdict(one)} for one in scores)
                bar.update(task, advance=len(scores))
        found = {record["key"]: _whole(record) for record in read_store(unfinished)}
    table = pd.DataFrame([found[shown_name(file)] for file in files]).drop(columns=["key", "mark"], errors="ignore")
    with atomic_path(out) as whole:  # a truncated table would look like a finished one
        _WRITERS[out.suffix.lower()](table if columns is None else table[list(columns)], whole)
    shutil.rmtree(unfinished)
    scored = int((table.status == "ok").sum())
    _summarise(table, scored, out, console)
    return scored


def _mark_of(file: Path) -> list[Any] | None:
    """Return what shows that a file has changed: its size, its modification time, and the digest of its content."""
    try:
        about = file.stat()
        return [about.st_size, about.st_mtime_ns, file_digest(file)]
    except OSError:
        return None  # the file is missing; its status says so


def _check_unchanged(files: Sequence[Path], unfinished: Path) -> None:
    """Check that files with finished scores have not changed since.

    Raises:
        ValueError: the content of a file has changed; the message names the file.
    """
    marks = {record["key"]: record.get("mark") for record in read_store(unfinished)}
    for file in files:
        if (before := marks.get(shown_name(file))) is None:
            continue
        about = file.stat() if file.exists() else None
        if about and [about.st_size, about.st_mtime_ns] == before[:2]:
            continue
        if about is None or about.st_size != before[0] or file_digest(file) != before[2]:
            raise ValueError(
                f"{file} has changed since it was scored: {unfinished} has the score of the earlier image. Fix: delete"
                f" {unfinished} to score all images again, or give another --out"
            )


def check_each_once(files: Sequence[Path]) -> None:
    """Check that no file is named twice, because its rows in the table would be ambiguous.

    Raises:
        ValueError: a file is named twice; the message names the file.
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
        raise ValueError(f"{out}: unsupported table format. Fix: use {', '.join(_WRITERS)}")
    if not is_utf8(out):
        raise ValueError(f"{shown_name(out)}: the table's name is not valid UTF-8. Fix: choose another name")
    if out.exists():
        raise ValueError(f"{out} exists already. Fix: choose another name, or move the file away")
    if not out.parent.is_dir():
        raise ValueError(f"{out.parent}: no such folder. Fix: create it")


def _whole(record: dict[str, Any]) -> dict[str, Any]:
    return {key: whole_text(cell) if isinstance(cell, str) else cell for key, cell in record.items()}


def _summarise(table: pd.DataFrame, scored: int, out: Path, console: Console) -> None:
    for one in table[table.status != "ok"].itertuples():
        console.print(f"{one.image}: {one.error or one.status}", style="red", markup=False, soft_wrap=True)
    console.print(f"{scored} of {len(table)} files scored: {out}", markup=False, soft_wrap=True)
