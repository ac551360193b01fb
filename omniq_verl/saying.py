"""How commands speak: on one console, and in one line where something is wrong."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def errors_said() -> "Iterator[Console]":
    """A console; an error of the user's files or settings is printed on it, and ends the program with code 1."""
    from rich.console import Console

    _never_fail_to_print()
    console = Console()
    try:
        yield console
    except typer.Exit:  # a RuntimeError, but no error
        raise
    except (ValueError, RuntimeError, OSError, ArithmeticError) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _never_fail_to_print() -> None:
    """A letter that the terminal cannot show, or half of one, becomes its number instead of a traceback."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
