"""The process that runs inputs. It says before each which one it is: its parent knows what it hung or died on."""

import faulthandler
import importlib
import os
import traceback
import warnings
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from fuzz.mutation import Files

KINDS = ("images", "tables", "prompts", "headers", "bodies")
READY = "ready"


def files_of(kind: str, seed: int, number: int) -> Files:
    """The input of this number: the same whatever ran before it."""
    return importlib.import_module(f"fuzz.{kind}").make(Random(f"{seed}/{kind}/{number}"))


def outcome_of(kind: str, files: Files, folder: Path) -> tuple[str, str]:
    """What an input came to; and its traceback if that is a failure, else nothing."""
    try:
        return importlib.import_module(f"fuzz.{kind}").run(files, folder), ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and the panics of other languages' libraries, too
        return f"{type(error).__name__}: {error}"[:300], traceback.format_exc()


def work(pipe: Connection, kind: str, seed: int, numbers: Iterable[int], seconds: float, stack: str) -> None:
    """Run these inputs.

    Args:
        pipe: gets ``READY``, then a number before each input, and behind it the number, outcome and traceback.
        kind: one of ``KINDS``.
        seed: of all inputs.
        numbers: of the inputs.
        seconds: after which the stack of an input that hangs is written.
        stack: the file for it.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.simplefilter("ignore")
    importlib.import_module(f"fuzz.{kind}")
    _silence()
    # Whatever is made once in a process is made before the time of the first input begins.
    with TemporaryDirectory() as first, open(stack, "w") as file:
        outcome_of(kind, files_of(kind, seed, 0), Path(first))
        pipe.send(READY)
        for number in numbers:
            with TemporaryDirectory() as folder:
                pipe.send(number)
                faulthandler.dump_traceback_later(seconds, file=file)
                outcome = outcome_of(kind, files_of(kind, seed, number), Path(folder))
                faulthandler.cancel_dump_traceback_later()
            pipe.send((number, *outcome))


def _silence() -> None:
    """C libraries print a line for many a broken image; what they print last would hide the summary."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
