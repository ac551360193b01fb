"""Run the processes of ``gpu_step.py`` one at a time: with a log, a time limit, and none that is left behind."""

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
"""Lines of a failed process's log that are shown."""
_HEARTBEAT = 30
"""Seconds between signs of life on the terminal."""
_PR_SET_PDEATHSIG = 1
_IDLE_BYTES = 2 * 2**30
"""More memory in use than this means that an earlier process has not ended yet."""


class PartFailed(RuntimeError):
    """A process failed, or its time was over; the message says which."""


def start(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen:
    """Start a command in a process group of its own, with its output in ``log``, where it replaces an older one."""
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
    """Wait for a process of ``start``; end all of its group when it has ended or if we leave early.

    Args:
        process: to wait for.
        log: its output.
        seconds: time limit.
        tick: called some ten times a second while it runs.
        say: prints a line for the user.

    Raises:
        PartFailed: it ended with an error or was stopped; the end of the log is in the message.
    """
    try:
        in_time = _wait(process, time.monotonic() + seconds, log, tick, say)
    finally:
        stop(process)
    if not in_time:
        raise PartFailed(f"stopped, its {seconds:.0f} s were over; the end of {log}:\n{tail(log)}")
    if process.returncode:
        raise PartFailed(f"exit code {process.returncode}; the end of {log}:\n{tail(log)}")


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
    """The last lines of a log that are not empty, without terminal colours."""
    with open(log, errors="replace") as file:
        last = deque((line.rstrip() for line in file if line.strip()), lines)
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", "\n".join(last))


def stop(process: subprocess.Popen) -> None:
    """End a process and those it started, first politely, so that Ray can end its own."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # of its group, whatever is still there
    process.wait()


def _die_with_parent() -> None:
    """Runs in the child: even if this process is killed, its children end."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_for_free_card(seconds: float = 30) -> None:
    """Wait until the card's memory is free again, so that the next part can have it."""
    read = card_reader()
    deadline = time.monotonic() + seconds
    while read is not None and read()[0] > _IDLE_BYTES and time.monotonic() < deadline:
        time.sleep(0.5)
