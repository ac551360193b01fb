"""Run a module in a process that dies with the one that started it.

python -m omniq_verl.pipeline.worker MODULE [ARGUMENTS]...

For the processes of ``torchrun``: if their launcher is killed, they would go on training in the same folder as the next
start of the stage.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Linux: be killed when the parent ends, however it ends."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("there is no module to run. Fix: python -m omniq_verl.pipeline.worker MODULE [ARGUMENTS]...")
    die_with_parent()
    module, sys.argv = sys.argv[1], sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
