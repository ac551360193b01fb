"""Python of the documentation runs, page by page, and prints what the page says."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from docs_builders import REPO, Block, blocks, pages
from image_builders import saved, smooth
from rali_builders import save_tiny_rali, tiny_encoder_folder

from omniq_verl.tasks import IMAGE_TASKS
from omniq_verl.tiny.model import save_tiny_model

pytestmark = pytest.mark.slow  # for a minute or two; one test starts Ray Serve and a model in vLLM

PHOTOS = ("clean", "slight_noise", "noise", "dark")
MODELS = ("quickstart/grpo/global_step_20", "stage2/global_step_20", "q_insight/global_step_20")
SERVER = "a server"
WITH_CODE = [page for page in pages() if blocks(page, "python")]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with what the pages name: photographs, models and a RALI, all of them tiny."""
    root = tmp_path_factory.mktemp("reader")
    (root / "photos").mkdir()
    for number, name in enumerate(PHOTOS):
        (root / f"photos/{name}.png").write_bytes(saved(smooth(80, 80, number), "PNG"))
    (root / "rated").mkdir()
    for number in range(3):
        (root / f"rated/{number:04d}_mos{20 + 30 * number}.png").write_bytes(saved(smooth(64, 64, number), "PNG"))
    model = root / "model"
    corpus = [question for task in IMAGE_TASKS.values() for question in task.questions]
    save_tiny_model(model, corpus, [np.zeros((80, 80, 3), dtype=np.uint8)])
    for name in MODELS:
        (root / "runs" / name / "actor").mkdir(parents=True)
        (root / "runs" / name / "actor" / "huggingface").symlink_to(model)
    save_tiny_rali(root / "runs/rali", tiny_encoder_folder(root / "encoder"))
    return root


@pytest.fixture(autouse=True)
def in_the_readers_folder(world, monkeypatch) -> Iterator[None]:
    monkeypatch.chdir(world)
    monkeypatch.syspath_prepend(str(world))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


def run(block: Block, names: dict, text: str | None = None) -> str:
    """What a block prints."""
    printed = io.StringIO()
    code = compile(text or block.text, str(block), "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue()


def save(block: Block) -> None:
    path = Path(block.marker[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")


@pytest.mark.parametrize("page", WITH_CODE, ids=str)
def test_the_python_of_a_page_runs_and_prints_what_it_shows(page):
    names: dict = {"__name__": "page"}
    printed = ""
    for block in blocks(page):
        kind, value = block.marker
        if kind == "file":
            save(block)
        elif block.language == "python" and kind != "needs":
            printed = run(block, names)
        elif block.language == "text" and printed and kind != "output":
            assert block.text == printed, str(block)
        elif block.language == "text" and printed:
            assert [line.split()[0] for line in block.text.splitlines()] == [
                line.split()[0] for line in printed.splitlines()
            ], value
        printed = printed if block.language == "python" else ""


def test_a_block_that_prints_something_is_followed_by_what_it_prints_on_pages_that_teach():
    for page in (Path("docs/concepts.md"), Path("docs/extending.md")):
        for block, after in pairwise([*blocks(page), None]):
            if block.language == "python" and "print(" in block.text:
                assert after is not None and after.language == "text", str(block)


@pytest.mark.parametrize(("script", "name"), [("my_dataset.py", "my_photos"), ("my_reader:read", "rated")])
def test_the_data_set_of_the_page_is_prepared_by_its_command(world, script, name):
    page = Path("docs/extending.md")
    for block in blocks(page):
        if block.marker[0] == "file":
            save(block)
    lines = [line for block in blocks(page, "bash") for line in block.text.replace("\\\n", "").splitlines()]
    (command,) = [line.removeprefix("PYTHONPATH=. ") for line in lines if script in line and "--root rated" in line]
    words = [str(REPO / word) if word.startswith("data_prep/") else word for word in command.split()[1:]]
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(REPO), str(world)))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{name}: 3 rows, 0 rejects" in done.stdout


def test_the_script_of_the_page_has_the_options_of_the_others(world, monkeypatch, capsys):
    for block in blocks(Path("docs/extending.md")):
        if block.marker[0] == "file":
            save(block)
    monkeypatch.setattr(sys, "argv", ["my_dataset.py", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path("my_dataset.py", run_name="__main__")
    assert "--strict" in capsys.readouterr().out


def test_blocks_that_need_a_server_run_against_one(world):
    from contracts.test_serve import served

    asked = [block for page in WITH_CODE for block in blocks(page, "python") if block.marker == ("needs", SERVER)]
    assert len(asked) >= 2
    words = ("--max-model-len", 256, "--max-tokens", 12, "--dtype", "float32", "--memory", 0.2)
    with served(world / "server.log", "--model", world / "model", *words) as (url, _):
        for block in asked:
            assert run(block, {"__name__": "page"}, block.text.replace("http://localhost:8000", url)).strip()
