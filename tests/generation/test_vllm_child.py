"""An engine's process ends with whoever started it, where that was asked for."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

SCRIPT = """
import multiprocessing, time
from omniq_verl.generation.vllm_child import die_with_parent
def child():
    die_with_parent()
    print("begun", multiprocessing.current_process().pid, flush=True)
    time.sleep(600)
if __name__ == "__main__":
    die_with_parent()  # of one that is nobody's child: nothing
    started = multiprocessing.get_context("spawn").Process(target=child)
    started.start()
    started.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end it")
@pytest.mark.parametrize("asked", [True, False])
def test_a_child_ends_with_a_killed_parent_if_asked(tmp_path, asked):
    (script := tmp_path / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "OMNIQ_ENGINE_DIES_WITH_PARENT"}
    environment |= {"OMNIQ_ENGINE_DIES_WITH_PARENT": "1"} if asked else {}
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    child = psutil.Process(int(parent.stdout.readline().split()[1]))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    time.sleep(0.5)
    alive = child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    if alive:
        child.kill()
    assert alive is not asked
