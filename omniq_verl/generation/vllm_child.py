"""Actions at the start of vLLM's own processes (entry point ``vllm.general_plugins``)."""

import ctypes
import multiprocessing
import os
import signal

DIES_WITH_PARENT = "OMNIQ_ENGINE_DIES_WITH_PARENT"
"""Set by a process that starts an engine that must not outlive it and occupy GPU memory."""
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """On Linux, if requested: let the kernel kill this process when its parent ends. Elsewhere: do nothing."""
    parent = multiprocessing.parent_process()
    if not os.environ.get(DIES_WITH_PARENT) or parent is None or os.uname().sysname != "Linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent.pid:  # it ended before
        os._exit(1)
