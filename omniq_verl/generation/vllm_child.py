"""What vLLM's own processes do when they begin (entry point ``vllm.general_plugins``)."""

import ctypes
import multiprocessing
import os
import signal

DIES_WITH_PARENT = "OMNIQ_ENGINE_DIES_WITH_PARENT"
"""Set by those who start an engine beside themselves: it must not outlive them, and keep their GPU's memory."""
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Linux: be killed when the process that started this one ends, however it ends. Elsewhere, or unasked: nothing."""
    parent = multiprocessing.parent_process()
    if not os.environ.get(DIES_WITH_PARENT) or parent is None or os.uname().sysname != "Linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent.pid:  # it ended before
        os._exit(1)
