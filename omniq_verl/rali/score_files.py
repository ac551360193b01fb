"""Score files with a RALI model, in the terminal or into a table; a killed run resumes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from omniq_verl.rali.scorer import RaliScorer
from omniq_verl.scoring.image_inputs import list_files
from omniq_verl.scoring.score_table import check_each_once, write_scores
from omniq_verl.scoring.scorer import Score

_AT_ONCE = 256
"""Files finished together, and so the most work that a kill can lose."""
_COLUMNS = ("image", "task", "status", "score", "level", "error")
"""Columns of a RALI score."""


def score_files(scorer: RaliScorer, paths: Sequence[Path], out: Path | None, console: Console) -> int:
    """Score files, including those in folders, in order; returns the number of files with a score.

    Raises:
        ValueError: a file does not exist; see ``scoring.files.write_scores``.
    """
    files = list_files(paths)
    check_each_once(files)

    def batches(left: Sequence[Path]) -> Iterator[list[Score]]:
        return (scorer.score(left[first : first + _AT_ONCE]) for first in range(0, len(left), _AT_ONCE))

    if out is None:
        return sum(_print_score(one, console) for some in batches(files) for one in some)
    return write_scores(files, out, console, {"weights": scorer.digest}, batches, _COLUMNS)


def _print_score(one: Score, console: Console) -> bool:
    text = f"{one.score:.2f} {one.level}" if one.ok else one.error
    console.print(f"{one.image}: {text}", style=None if one.ok else "red", markup=False, soft_wrap=True)
    return one.ok
