"""Every adapter to verl can be the first thing a process imports, although verl imports some of them in turn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
SCRIPT = """
import importlib, json, os, sys, traceback
import ray, tensordict, torch, transformers  # once for all; verl must not be among them
failed = {}
for name in json.loads(sys.argv[1]):
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            os.write(write, traceback.format_exc()[-2000:].encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        if error := pipe.read():
            failed[name] = error
    os.wait()
print("failed:", json.dumps(failed))
"""


@pytest.mark.slow
def test_every_adapter_can_be_imported_first():
    paths = sorted(path.relative_to(REPO) for path in (REPO / "omniq_verl").rglob("*_verl.py"))
    names = [str(path.with_suffix("")).replace(os.sep, ".") for path in paths]
    assert len(names) > 20
    command = [sys.executable, "-c", SCRIPT, json.dumps(names)]
    environment = {**os.environ, "VERL_PLATFORM": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=True)
    failed = json.loads(done.stdout.rpartition("failed:")[2])
    assert not failed, "\n\n".join(f"{name}: {error}" for name, error in failed.items())
