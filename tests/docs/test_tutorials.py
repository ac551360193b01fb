"""The code of the tutorials runs, and prints what the notebooks show."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from docs_builders import DOCS, REPO

from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.model import save_tiny_model

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((DOCS / "tutorials").glob("*.ipynb"))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has who has run the quickstart in a checkout; the model is tiny and untrained."""
    folder = tmp_path / "runs/quickstart/grpo/global_step_20/actor"
    folder.mkdir(parents=True)
    save_tiny_model(folder / "huggingface", list(TECHNICAL.questions), [np.zeros((80, 80, 3), dtype=np.uint8)])
    (tmp_path / "recipes").symlink_to(REPO / "recipes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def code_cells(notebook: Path) -> list[dict]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def shown(cell: dict) -> str:
    return "".join("".join(output["text"]) for output in cell["outputs"])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_prints_what_it_shows(notebook, root):
    names: dict = {"__name__": "tutorial"}
    for number, cell in enumerate(code_cells(notebook), 1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"{notebook.name}[{number}]", "exec"), names)
        if "not-compared" in cell["metadata"].get("tags", ()):
            assert printed.getvalue().count("\n") == shown(cell).count("\n") > 0
        else:
            assert printed.getvalue() == shown(cell)


def test_tutorials_are_there_and_most_of_their_output_is_compared():
    assert {path.stem for path in NOTEBOOKS} == {"add_a_reward", "add_a_task", "score_a_folder"}
    cells = [cell for notebook in NOTEBOOKS for cell in code_cells(notebook)]
    loose = [cell for cell in cells if "not-compared" in cell["metadata"].get("tags", ())]
    assert len(loose) * 3 <= len(cells)
    assert all(cell["execution_count"] for cell in cells)
