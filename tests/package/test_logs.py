"""What a command's user sees of the libraries below: nothing of their logs, unless asked for."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.tiny.model import save_tiny_model


def clean_environment() -> dict[str, str]:
    """The environment without the log levels that earlier tests of this process have set by calling commands."""
    return {name: value for name, value in os.environ.items() if not name.endswith(("_LEVEL", "_VERBOSITY"))}


def run(code: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False)


LATE = """
import atexit, os, sys
from omniq_verl.logs import set_up_logs
set_up_logs({verbose})
atexit.register(lambda: print("of Python", file=sys.stderr))
class Late:
    def __del__(self, write=os.write): write(2, b"of the interpreter's end")
late = Late()
print(os.environ.get("VLLM_LOGGING_LEVEL"))
sys.exit(3)
"""


def test_what_is_written_as_the_interpreter_ends_is_hidden_and_nothing_before():
    quiet, verbose = (run(LATE.format(verbose=verbose)) for verbose in (False, True))
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (3, "ERROR\n", "of Python\n")
    assert (verbose.returncode, verbose.stdout) == (3, "INFO\n") and "of the interpreter's end" in verbose.stderr


def test_what_the_user_has_set_stays():
    code = "import os; os.environ['VLLM_LOGGING_LEVEL'] = 'DEBUG'\nfrom omniq_verl.logs import set_up_logs\n"
    assert run(f"{code}set_up_logs(False); print(os.environ['VLLM_LOGGING_LEVEL'])").stdout == "DEBUG\n"


OPENING = (
    *("score", "eval", "compare-images", "serve", "demo", "heatmap", "cot run", "cot plan", "cot reason", "ract align"),
)


@pytest.mark.parametrize("words", [*OPENING, "rali pairs", "t2i reflect", "t2i best-of-n"])
def test_every_command_that_opens_a_model_can_show_its_logs(words):
    found = CliRunner().invoke(app, [*words.split(), "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert "--verbose" in found.output


CAPTURED = {"capture_output": True, "text": True, "timeout": 600, "check": False}


@pytest.mark.slow
def test_a_command_of_vllm_prints_its_result_and_nothing_else(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)
    save_tiny_model(tmp_path / "model", ["Rate it. <answer>3</answer>"], [image], 0)
    Image.fromarray(image).save(tmp_path / "a.png")
    command = [sys.executable, "-m", "omniq_verl.cli", "score", "a.png", "--model", "model", "--max-tokens", "4"]
    quiet, verbose = (
        subprocess.run([*command, *more], cwd=tmp_path, env=clean_environment(), **CAPTURED)
        for more in ([], ["--verbose"])
    )
    assert quiet.stderr == "" and len(quiet.stdout.splitlines()) == 1 and quiet.stdout.startswith("a.png: ")
    assert len((verbose.stdout + verbose.stderr).splitlines()) > 10 and quiet.stdout in verbose.stdout
