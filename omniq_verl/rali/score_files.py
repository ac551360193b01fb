"""Scores of files, in the terminal or into a table; a killed run goes on."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track

from omniq_verl.generation.store import Store, read_store
from omniq_verl.rali.scorer import RaliScorer
from omniq_verl.scoring.inputs import list_files
from omniq_verl.scoring.scorer import Score

_WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".jsonl": lambda table, path: table.to_json(path, orient="records", lines=True),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}
_AT_ONCE = 256
"""Files that are finished together: what a kill can cost."""


def score_files(scorer: RaliScorer, paths: Sequence[Path], out: Path | None, console: Console) -> int:
    """Score files, and those of folders, in their order; returns how many have a score.

    While a table is made, what is done lies in the folder ``<out>.unfinished``, which goes at the end.

    Raises:
        ValueError: no such file; another kind of table, one that exists already, or one begun with another model.
    """
    files = list_files(paths)
    if out is None:
        return sum(_say(one, console) for some in _parts(files) for one in scorer.score(some))
    _check_out(out)
    unfinished = out.with_name(f"{out.name}.unfinished")
    with Store(unfinished, {"weights": scorer.digest}) as store:
        left = [file for file in files if str(file) not in store.keys]
        for some in track(list(_parts(left)), "scoring", console=console, transient=True, disable=not left):
            store.add({"key": score.image, **asdict(score)} for score in scorer.score(some))
        found = {record.pop("key"): record for record in read_store(unfinished)}
    scores = [Score(**found[str(file)]) for file in files]
    columns = ["image", "task", "status", "score", "level", "why"]
    _WRITERS[out.suffix](pd.DataFrame([asdict(one) for one in scores])[columns], out)
    shutil.rmtree(unfinished)
    scored = sum(one.ok or _say(one, console) for one in scores)
    console.print(f"{scored} of {len(files)} files scored: {out}", markup=False, soft_wrap=True)
    return scored


def _parts(files: Sequence[Path]) -> Iterator[list[Path]]:
    for first in range(0, len(files), _AT_ONCE):
        yield list(files[first : first + _AT_ONCE])


def _check_out(out: Path) -> None:
    if out.suffix not in _WRITERS:
        raise ValueError(f"{out}: tables are written as {', '.join(_WRITERS)}")
    if out.exists():
        raise ValueError(f"{out} exists already. Mend: give another name, or move it away")
    if not out.parent.is_dir():
        raise ValueError(f"{out.parent}: no such folder")


def _say(one: Score, console: Console) -> bool:
    said = f"{one.score:.2f} {one.level}" if one.ok else one.why
    console.print(f"{one.image}: {said}", style=None if one.ok else "red", markup=False, soft_wrap=True)
    return one.ok
