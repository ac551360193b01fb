"""A trained model becomes a folder that its own card's three lines load; evaluations become a leaderboard."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from data_builders import prepare_made, whole_set
from generation_builders import png, write_rows
from typer.testing import CliRunner

from data_prep.mix import main as mix
from omniq_verl.cli import app
from omniq_verl.families.about import card_fields
from omniq_verl.publishing import publish
from omniq_verl.publishing.card import CardOptions
from omniq_verl.publishing.leaderboard import board, write_leaderboard
from omniq_verl.tasks import TECHNICAL, Scale
from omniq_verl.tiny.model import save_tiny_model


def invoke(*words: str):
    return CliRunner().invoke(app, list(map(str, words)))


def said(result) -> str:
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A training run with one checkpoint, its recipe and its data's card."""
    folder = tmp_path_factory.mktemp("run") / "grpo"
    model = folder / "global_step_20" / "actor" / "huggingface"
    model.parent.mkdir(parents=True)
    save_tiny_model(model, [*TECHNICAL.questions, "<answer>3.7</answer>"], [np.zeros((80, 80, 3), dtype=np.uint8)])
    data = folder.parent / "data"
    data.mkdir()
    card = {"data_source": "made", "files": {"train.parquet": 40}, "target": "mean opinion | scores"}
    (data / "dataset_card.json").write_text(json.dumps(card))
    config = {
        "data": {"train_files": [str(data / "train.parquet")]},
        "actor_rollout_ref": {"model": {"path": "models/tiny"}, "rollout": {"n": 8}},
    }
    (folder / "hydra").mkdir()
    (folder / "hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"job": {"config_name": "quickstart/grpo"}}}))
    return folder


@pytest.fixture(scope="module")
def evaluated(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("evaluated")
    data = write_rows(out / "test.parquet", [1, 2, 3, 4, 5, 2.5])
    words = ["eval", "--model", run, "--engine", "hf", "--data", data, "--out", out / "direct", "--mode", "direct"]
    done = invoke(*words, "--resamples", "20")
    assert done.exit_code == 0, done.output
    return out / "direct"


def test_a_published_folder_is_loaded_by_the_three_lines_of_its_card(run, evaluated, tmp_path, monkeypatch, capsys):
    out = tmp_path / "my-model"
    words = [
        "publish",
        run,
        "--licence",
        "apache-2.0",
        "--evaluation",
        evaluated,
        "--out",
        out,
        "--base",
        "Qwen/Qwen2.5-VL",
    ]
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    card = (out / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(code.strip().splitlines()) == 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(png(1, side=80))
    exec(code.replace('engine="hf"', 'engine="hf", max_tokens=4'), {})
    assert "Score(image='photo.jpg', task='technical'" in capsys.readouterr().out


def test_the_card_says_what_is_known(run, evaluated, tmp_path):
    found = publish.prepare(
        run, CardOptions("org/my-model", "mit", base="Qwen/Qwen2.5-VL", limits="No medicine."), [evaluated]
    )
    fields = card_fields(found.card)
    assert fields["license"] == "mit" and fields["base_model"] == "Qwen/Qwen2.5-VL" and "omniq_verl" in fields["tags"]
    figures = json.loads((evaluated / "metrics.json").read_text())["sets"]["made"]["srcc"]
    assert f"{figures['value']:.3f} [{figures['low']:.3f}, {figures['high']:.3f}]" in found.card
    known = ["Rate the technical quality", "from 1 to 5", "quickstart/grpo", "rollout.n`: 8", "No medicine."]
    known += ["rows: 40", "data_source: made", "opinion \\| scores", "from_pretrained('org/my-model'", "| direct |"]
    for text in known:
        assert text in found.card, text
    assert str(run.parent) not in found.card and str(run.parent) not in json.dumps(found.about)
    assert found.about["weights"] == found.run.weights and found.about["evaluations"][0]["mode"] == "direct"


def test_the_card_shows_the_training_data_as_scripts_record_it(run, tmp_path):
    sets = tmp_path / "sets"
    whole_set(tmp_path / "files")
    prepare_made(tmp_path / "files", sets / "one")
    prepare_made(tmp_path / "files", sets / "two", "--task", "alignment", "--scale", "0-5", "--shard-rows", "4")
    mix(["--root", str(sets), "--out", str(tmp_path / "mix"), "--take", "one=4", "two=3"])
    files = [sets / "one/train.parquet", sets / "two/train-00001-of-00002.parquet", tmp_path / "mix/train.parquet"]
    other = tmp_path / "run"
    (other / "hydra").mkdir(parents=True)
    (other / "global_step_20").symlink_to(run / "global_step_20")
    config = {"data": {"train_files": [str(file) for file in files]}}
    (other / "hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    found = publish.prepare(other, CardOptions("m", "mit"), [])
    shown = found.card.partition("## Training data\n\n")[2].partition("\n\n")[0].splitlines()
    made = "data_source: made; task: technical"
    two = "data_source: made; task: alignment"
    assert shown == [
        f"- `train.parquet`; {made}; licence: none; rows: 6; label_map: from 0 to 100 to 1 to 5",
        f"- `train-00001-of-00002.parquet`; {two}; licence: none; rows: 2; label_map: from 0 to 100 to 0 to 5",
        "- `train.parquet`; rows: 7",
        f"- `train.parquet`, part `one`; {made}; rows: 4; label_map: from 0 to 100 to 1 to 5",
        f"- `train.parquet`, part `two`; {two}; rows: 3; label_map: from 0 to 100 to 0 to 5",
    ]


def test_the_card_says_what_makes_its_figures_doubtful(run, tmp_path):
    data = write_rows(tmp_path / "train.parquet", [1, 2, 3, 4, 5, 2.5])
    words = ["eval", "--model", run, "--engine", "hf", "--data", data, "--out", tmp_path / "eval", "--mode", "direct"]
    done = invoke(*words, "--resamples", "20", "--limit", "4")
    assert done.exit_code == 0, done.output
    found = publish.prepare(run, CardOptions("m", "mit"), [tmp_path / "eval"])
    assert "\n- made: only the first 4 rows of each file were measured\n" in found.card
    assert "\n- made: 4 of 4 rows are training rows (the first is" in found.card
    assert "of train.parquet)" in found.card and str(tmp_path) not in found.card + json.dumps(found.about)
    assert found.about["evaluations"][0]["limit"] == 4 and len(found.about["evaluations"][0]["doubts"]) == 2


def test_tasks_and_scale_of_a_published_model_are_kept(run, tmp_path):
    from omniq_verl.families.find import find_family

    wishes = CardOptions("m", "mit", ("technical", "degradation"), Scale(0.0, 5.0))
    publish.write(publish.prepare(run, wishes, []), tmp_path / "m")
    family, about = find_family(str(tmp_path / "m"))
    assert family.tasks["technical"].scale == Scale(0.0, 5.0) and family.tasks["degradation"].scale is None
    with pytest.raises(ValueError, match="has no task 'aesthetic'"):
        family.task("aesthetic")
    for broken in (
        {"version": 2},
        {"tasks": [{"name": "x"}]},
        {"tasks": 3},
        {"tasks": [{"name": "technical", "scale": [5, 0]}]},
    ):
        (tmp_path / "m/omniq.json").write_text(json.dumps({**about.ours, **broken}))
        with pytest.raises(ValueError, match=r"omniq.json is not valid.*Fix"):
            find_family(str(tmp_path / "m"))


def test_a_dry_run_shows_all_and_writes_nothing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke("publish", run, "--licence", "mit", "--dry-run", "--push", "org/name")
    assert done.exit_code == 0 and "model.safetensors:" in done.output and "## Limits" in done.output
    assert f"model: {run}/global_step_20/actor/huggingface (the newest checkpoint of {run})" in said(done)
    assert "from_pretrained('org/name'" in done.output and not list(tmp_path.iterdir())


def test_nothing_but_the_model_is_copied(run, tmp_path):
    model = run / "global_step_20/actor/huggingface"
    for name in ("optimizer.pt", "trick.py", ".hidden", "README.md"):
        (model / name).write_text("x")
    try:
        publish.write(publish.prepare(run, CardOptions("m", "mit"), []), tmp_path / "m")
    finally:
        for name in ("optimizer.pt", "trick.py", ".hidden", "README.md"):
            (model / name).unlink()
    assert {"config.json", "model.safetensors", "README.md", "omniq.json"} <= {
        path.name for path in (tmp_path / "m").iterdir()
    }
    assert not {"optimizer.pt", "trick.py", ".hidden"} & {path.name for path in (tmp_path / "m").iterdir()}
    assert (tmp_path / "m/README.md").read_text() != "x" and not (tmp_path / "m.part").exists()


def test_what_cannot_be_published_is_named(run, evaluated, tmp_path):
    other = tmp_path / "other"
    save_tiny_model(other, list(TECHNICAL.questions), [np.zeros((80, 80, 3), dtype=np.uint8)], seed=1)
    words = ["--licence", "mit", "--out", tmp_path / "out"]
    assert "was measured with weights other" in said(invoke("publish", other, *words, "--evaluation", evaluated))
    assert "holds no model" in said(invoke("publish", tmp_path, *words))
    assert "has no metrics.json of omniq eval" in said(invoke("publish", run, *words, "--evaluation", tmp_path))
    assert "the licence is empty. Fix" in said(invoke("publish", run, "--licence", " ", "--dry-run"))
    assert "no folder to write. Fix: name it with --out" in said(invoke("publish", run, "--licence", "mit"))
    (tmp_path / "out").mkdir()
    assert "exists already. Fix" in said(invoke("publish", run, *words))


def test_a_hub_that_rejects_an_upload_is_one_sentence(run, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = invoke("publish", run, "--licence", "mit", "--out", tmp_path / "m", "--push", "org/name")
    assert done.exit_code == 1 and "org/name: it cannot be uploaded" in said(done) and "Fix: " in done.output


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("x")
    monkeypatch.setattr("huggingface_hub.hf_api.HfApi.create_repo", unreachable)
    with pytest.raises(
        publish.BadRun, match=r"org/name: it cannot be uploaded.*\(no route\)\. Fix: .*hf upload org/name"
    ):
        publish.push(tmp_path, "org/name", False)


def unreachable(*_args: object, **_settings: object) -> None:
    import httpx

    raise httpx.ConnectError("no route")  # no OSError


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"model": None}, "model or mode is no text"),
        ({"sets": {"a": 5}}, "the set 'a' has no task"),
        ({"sets": {"a": {"task": "technical", "scored": 1}}}, "the set 'a' has no numbers of images"),
        ({"sets": {"a": {"task": "t", "scored": 1, "images": 1, "srcc": None}}}, "srcc of the set 'a' is no figure"),
        ({"sets": {"a": {"task": "t", "scored": 1, "images": 1, "srcc": {"value": math.nan}}}}, "srcc of the set"),
        ({"sets": {"a": {"task": "t", "scored": 1, "images": 1}}}, "the set 'a' has no data source"),
        ({"limit": "all"}, "limit is no number"),
        ({"warnings": [1]}, "warnings are no texts"),
        ({"provenance": {"data": {"files": ["a"]}}}, "the record of the data has no paths"),
    ],
)
def test_an_evaluation_of_another_form_is_named(tmp_path, broken, said):
    metrics = {"model": "m", "engine": {"weights": "w"}, "sets": {}} | broken
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(publish.BadRun, match=said):
        board([tmp_path])


def test_evaluations_in_folders_of_one_name_are_told_apart(tmp_path):
    folders = [fake(tmp_path / name / "eval", name, koniq=0.5) for name in ("x", "y")]
    assert [row["name"] for row in board(folders)["rows"]] == ["x", "y"]
    with pytest.raises(ValueError, match="a folder is given twice"):
        board([folders[0], folders[0]])


def fake(folder: Path, model: str, about: dict | None = None, images: int = 9, **srcc: float | None) -> Path:
    """An evaluation of sets named SOURCE or SOURCE__TASK, technical by default."""
    folder.mkdir(parents=True)
    sets = {}
    for name, value in srcc.items():
        source, _, task = name.partition("__")
        one = {"value": value, "low": None, "high": None}
        figures = {"srcc": one, "plcc": one, "rmse": one, "scored": 9, "images": images}
        sets[source] = {"data_source": source, "task": task or "technical", **figures}
    metrics = {"model": model, "engine": {"weights": "w"}, "sets": sets, **(about or {})}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_sets_of_one_name_and_two_tasks_are_two_columns(tmp_path):
    folders = [
        fake(tmp_path / "a", "m1", agiqa3k__technical=0.9, koniq=0.5),
        fake(tmp_path / "b", "m2", agiqa3k__alignment=0.8, koniq=0.6),
        fake(tmp_path / "c", "m3", agiqa3k__technical_direct=0.7, koniq=0.4),
    ]
    found = board(folders)
    assert found["sets"] == ["agiqa3k/technical", "koniq", "agiqa3k/alignment"] and found["common"] == ["koniq"]
    assert [row["name"] for row in found["rows"]] == ["b", "a", "c"]
    measured = {row["name"]: sorted(row["figures"]) for row in found["rows"]}
    assert measured["a"] == measured["c"] == ["agiqa3k/technical", "koniq"] != measured["b"]


def test_evaluations_with_another_limit_are_not_ranked_together(tmp_path):
    folders = [fake(tmp_path / name, name, {"limit": limit}, koniq=0.5) for name, limit in (("a", 50), ("b", None))]
    with pytest.raises(ValueError, match=r"different rows \(a --limit 50, b all rows\)\. Fix: .*the same --limit"):
        board(folders)


def test_both_pages_say_what_makes_figures_doubtful(tmp_path):
    file = "/home/me/data/train.parquet"
    about = {"limit": 50, "provenance": {"data": {"files": [{"path": file}]}}}
    warned = {**about, "warnings": [f"3 of 9 rows are training rows (of {file})"]}
    folders = [fake(tmp_path / "a", "a", warned, koniq=0.5), fake(tmp_path / "b", "b", about, images=12, koniq=0.5)]
    found = write_leaderboard(folders, tmp_path / "board")
    expected = [
        "a: only the first 50 rows of each file were measured",
        "a: 3 of 9 rows are training rows (of train.parquet)",
        "b: only the first 50 rows of each file were measured",
        "koniq: the models were measured on different numbers of images (a 9, b 12)",
    ]
    assert found["notes"] == expected and found["limit"] == 50
    for name in ("leaderboard.md", "leaderboard.html"):
        page = (tmp_path / "board" / name).read_text()
        assert all(note in page for note in expected), name


def test_a_leaderboard_ranks_by_the_mean_over_common_sets(tmp_path):
    folders = [
        fake(tmp_path / "a", "m|1", koniq=0.9, spaq=0.5),
        fake(tmp_path / "b", "m2", koniq=0.8, spaq=0.8, kadid=0.1),
        fake(tmp_path / "c", "m3", koniq=0.7, spaq=None),
    ]
    found = board(folders)
    assert found["common"] == ["koniq"] and [row["name"] for row in found["rows"]] == ["a", "b", "c"]
    found = write_leaderboard(folders[:2], tmp_path / "board")
    assert found["common"] == ["koniq", "spaq"] and [row["name"] for row in found["rows"]] == ["b", "a"]
    assert found["rows"][0]["mean"] == pytest.approx(0.8)
    assert "| 1 | b | reason | 0.800 | 0.800 / 0.800 |" in (tmp_path / "board/leaderboard.md").read_text()
    assert "<td>0.800</td>" in (tmp_path / "board/leaderboard.html").read_text()


def test_the_command_writes_the_page(evaluated, tmp_path):
    done = invoke("leaderboard", evaluated, "--out", tmp_path / "board")
    assert done.exit_code == 0 and "leaderboard.html" in said(done)
    (row,) = json.loads((tmp_path / "board/leaderboard.json").read_text())["rows"]
    assert row["mode"] == "direct" and row["images_per_second"] > 0
