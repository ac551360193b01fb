"""Scores of files by a RALI, in the terminal or into a table; a killed run goes on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from omniq_verl.rali.scorer import RaliScorer
from omniq_verl.scoring.image_inputs import list_files
from omniq_verl.scoring.score_table import check_each_once, write_scores
from omniq_verl.scoring.scorer import Score

_AT_ONCE = 256
"""Files that are finished together: what a kill can cost."""
_COLUMNS = ("image", "task", "status", "score", "level", "error")
"""What a RALI has to say of an image."""


def score_files(scorer: RaliScorer, paths: Sequence[Path], out: Path | None, console: Console) -> int:
    """Score files, and those of folders, in their order; returns how many have a score.

    Raises:
        ValueError: no such file; see ``scoring.files.write_scores``.
    """
    files = list_files(paths)
    check_each_once(files)

    def batches(left: Sequence[Path]) -> Iterator[list[Score]]:
        return (scorer.score(left[first : first + _AT_ONCE]) for first in range(0, len(left), _AT_ONCE))

    if out is None:
        return sum(_say(one, console) for some in batches(files) for one in some)
    return write_scores(files, out, console, {"weights": scorer.digest}, batches, _COLUMNS)


def _say(one: Score, console: Console) -> bool:
    said = f"{one.score:.2f} {one.level}" if one.ok else one.error
    console.print(f"{one.image}: {said}", style=None if one.ok else "red", markup=False, soft_wrap=True)
    return one.ok
