"""One walk with a task, a reward and an engine from outside, in a process of its own: ``test_extending`` starts it.

    python tests/builders/extending_walk.py FOLDER TASK PREFIX

FOLDER holds prepared files of TASK; PREFIX is that of the modules' names, such as "" or "my_pkg.".
"""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from evaluation_builders import grey
from fastapi.testclient import TestClient
from omegaconf import OmegaConf
from typer.testing import CliRunner

from omniq_verl import Scorer
from omniq_verl.cli import app
from omniq_verl.generation.engines import open_async_engine
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.rewards import compute_score
from omniq_verl.serving.admission import Admission
from omniq_verl.serving.app import build_app
from omniq_verl.serving.async_scorer import AsyncScorer
from omniq_verl.serving.limits import Limits
from omniq_verl.serving.settings import ServerSettings
from omniq_verl.serving.state import Models, Server
from omniq_verl.trainer.validation import ANSWER_KEYS, validation_metrics


def main(folder: Path, task: str, prefix: str) -> None:
    rows = [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    report = {
        "rows": len(rows),
        "prompts": sorted({row["prompt"][0]["content"] for row in rows}),
        "rewards": rewards(rows, f"{prefix}reward:closeness"),
        "metrics": metrics(rows),
        "eval": evaluated(folder, f"{prefix}engine:open_engine"),
        "scored": scored(task, f"{prefix}engine:open_engine"),
        "served": served(task, f"{prefix}engine:open_async"),
    }
    print(json.dumps(report))


def rewards(rows: list[dict], name: str) -> list[float]:
    """As verl calls the function: the recipe's settings bound to it, the rest by name."""
    settings = OmegaConf.create({"score_reward": name, "score_settings": {"power": 2}, "sources": {}})
    call = functools.partial(compute_score, **settings)
    return [_call(call, row, 0.5)["score"] for row in rows]


def metrics(rows: list[dict]) -> dict[str, float]:
    """Rows of a source that is asked two tasks."""
    found = [_call(compute_score, row, 0.1 * number) for number, row in enumerate(rows)]
    technical = {**rows[0], "extra_info": {"task": "technical"}, "reward_model": {"ground_truth": '{"score": 3.0}'}}
    found += [_call(compute_score, technical, 0.0)]
    answers = {key: [one[key] for one in found] for key in ANSWER_KEYS}
    tasks = {row["extra_info"]["task"] for row in rows}
    return validation_metrics(["mine"] * len(found), answers, tasks=tasks)


def _call(function, row: dict, off: float) -> dict[str, float]:
    label = json.loads(row["reward_model"]["ground_truth"])["score"]
    said = f"<think>so</think><answer>{label - off if label > 5 else label + off:.3f}</answer>"
    return function(
        data_source=row["data_source"],
        solution_str=said,
        ground_truth=row["reward_model"]["ground_truth"],
        extra_info={**row["extra_info"], "num_turns": 2, "rollout_reward_scores": {}},
    )


def evaluated(folder: Path, engine: str) -> dict:
    out = folder / "eval"
    words = ["eval", str(folder / "test.parquet"), "--engine", engine, "--model", "x", "--out", str(out)]
    done = CliRunner().invoke(app, [*words, "--resamples", "20"])
    assert done.exit_code == 0, done.output
    return json.loads((out / "metrics.json").read_text())["sets"]


def scored(task: str, engine: str) -> dict:
    one = Scorer("x", engine=engine).score(checkers(), task=task)
    both = Scorer("x", engine=engine).score(checkers(), task=[task, "technical"])
    return {"task": one.task, "score": one.score, "level": one.level, "both": sorted(both)}


def served(task: str, engine: str) -> dict:
    settings = ServerSettings(EngineSpec("x", engine), tasks=(task,))
    settings.check()
    scorer = AsyncScorer(open_async_engine(settings.model), 64, 0, Limits().pixels)
    client = TestClient(build_app(Server(Models(scorer), Limits(), Admission(8), tasks=settings.tasks)))
    files = [("images", ("a.png", checkers(), "image/png"))]
    found = client.post("/v1/score", files=files, data={"task": task})
    other = client.post("/v1/score", files=files, data={"task": "tabnanny:check"})
    listed = {one["name"]: one["high"] for one in client.get("/v1/tasks").json()["tasks"]}
    assert found.status_code == 200, found.text
    scores = found.json()["results"][0]["scores"]
    rejected = [other.status_code, other.json()["detail"], "tabnanny" in sys.modules]
    return {"scores": {name: one["score"] for name, one in scores.items()}, "high": listed[task], "rejected": rejected}


def checkers() -> bytes:
    """Black and white in turn: as sharp as an image can be."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray((np.indices((16, 16)).sum(0) % 2 * 255).astype(np.uint8)).save(buffer, "PNG")
    assert buffer.getvalue() != grey(0)
    return buffer.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
