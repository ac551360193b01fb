"""Run the processes of ``gpu_step.py`` one at a time, with a log and a time limit, and leave none behind."""

import ctypes
import os
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gpu_watch import card_reader

_TAIL = 25
"""Number of lines shown from a failed process's log."""
_HEARTBEAT = 30
"""Seconds between progress lines on the terminal."""
_PR_SET_PDEATHSIG = 1
_IDLE_BYTES = 2 * 2**30
"""Memory use above this means that an earlier process has not ended yet."""


class PartFailed(RuntimeError):
    """A process failed or exceeded its time limit; the message says which."""


def start(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen:
    """Start a command in its own process group; its output replaces ``log``."""
    with open(log, "w") as output:
        output.write(f"{' '.join(command)}\n")
        output.flush()
        return subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,
            start_new_session=True,
        )


def finish(
    process: subprocess.Popen,
    log: Path,
    seconds: float,
    tick: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = print,
) -> None:
    """Wait for a process of ``start``; kill its whole group when it has ended or on an early exit.

    Args:
        process: process to wait for.
        log: file with its output.
        seconds: time limit.
        tick: called about ten times per second while it runs.
        say: prints a line for the user.

    Raises:
        PartFailed: it failed or was stopped; the message contains the end of the log.
    """
    try:
        in_time = _wait(process, time.monotonic() + seconds, log, tick, say)
    finally:
        stop(process)
    if not in_time:
        raise PartFailed(f"stopped after its limit of {seconds:.0f} s; the end of {log}:\n{tail(log)}")
    if process.returncode:
        raise PartFailed(f"failed with exit code {process.returncode}; the end of {log}:\n{tail(log)}")


def _wait(
    process: subprocess.Popen, deadline: float, log: Path, tick: Callable[[], None], say: Callable[[str], None]
) -> bool:
    spoken = time.monotonic()
    while process.poll() is None:
        tick()
        now = time.monotonic()
        if now > deadline:
            return False
        if now - spoken > _HEARTBEAT:
            spoken = now
            say(f"  ... {tail(log, 1)[:160]}")
        time.sleep(0.1)
    return True


def tail(log: Path, lines: int = _TAIL) -> str:
    """The last non-empty lines of a log, without terminal colours."""
    with open(log, errors="replace") as file:
        last = deque((line.rstrip() for line in file if line.strip()), lines)
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", "\n".join(last))


def stop(process: subprocess.Popen) -> None:
    """Stop a process and its children, first with SIGTERM, so that Ray can stop its own."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever is left of its group
    process.wait()


def _die_with_parent() -> None:
    """Runs in the child, so that it ends even if this process is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_for_free_card(seconds: float = 30) -> None:
    """Wait until the card's memory is free again, so that the next part can have it."""
    read = card_reader()
    deadline = time.monotonic() + seconds
    while read is not None and read()[0] > _IDLE_BYTES and time.monotonic() < deadline:
        time.sleep(0.5)
