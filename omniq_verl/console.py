"""Console output of the commands: one console, and one line per error."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from omniq_verl.data.names import never_fail_to_print

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

REPORT_EVERY = 60.0
"""Seconds between lines of progress in a log."""


@contextmanager
def cli_errors() -> "Iterator[Console]":
    """Yield a console. Errors in the user's files or settings are printed on it and end the program with code 1."""
    from rich.console import Console

    never_fail_to_print()
    console = Console()
    try:
        yield console
    except typer.Exit:  # a RuntimeError, but not an error
        raise
    except (ValueError, RuntimeError, OSError, ArithmeticError) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error


def progress_bar(console: "Console", unit: str) -> "Progress":
    """A progress bar with counts, time used and time left; it disappears when it is done.

    Args:
        console: where it is drawn.
        unit: what is counted, for example "rows".
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)


@contextmanager
def counted(title: str, total: int, console: "Console") -> "Iterator[Callable[[], None]]":
    """A progress bar of rows. Where there is no terminal, as in a log, a line appears each minute instead.

    Args:
        title: what is done to the rows, for example "writing".
        total: number of rows.
        console: where it is drawn.

    Yields:
        A function to be called after each row.
    """
    with progress_bar(console, "rows") as bar:
        task, done, reported = bar.add_task(title, total=total), 0, time.monotonic()

        def count() -> None:
            nonlocal done, reported
            done += 1
            bar.advance(task)
            if not console.is_terminal and time.monotonic() - reported >= REPORT_EVERY:
                reported = time.monotonic()
                console.print(f"{title}: {done:,} of {total:,} rows", markup=False, highlight=False)

        yield count
