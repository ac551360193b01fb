"""``examples/extending`` at work: one file outside of this package, and the whole way from labels to a server."""

import json
import re
from pathlib import Path

import pytest
from doctor_builders import composed
from evaluation_builders import RATER, grey
from reference_builders import EXAMPLES, REPO, pip_installed, run
from t2i_builders import PAINTER
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.doctor.settings import check_settings
from omniq_verl.serving.cli import serve

MODULES = ("reward", "batch_reward", "task", "reader", "selector", "engine")
REWARD = "reward.custom_reward_function.reward_kwargs"
SPLITS = {"train": 6, "val": 2, "test": 4}


def photos(folder: Path) -> Path:
    """Images with a score from 0 to 100 beside each, and one without a number."""
    for split, count in SPLITS.items():
        (folder / split).mkdir(parents=True)
        for number in range(count):
            (folder / split / f"{number}.png").write_bytes(grey(20 * number + len(split)))
            (folder / split / f"{number}.score").write_text(f"{10 * number + 20}")
    (folder / "test" / "bad.png").write_bytes(grey(200))
    (folder / "test" / "bad.score").write_text("sharp")
    return folder


@pytest.fixture(scope="module", params=["folder", "installed"])
def outside(request, tmp_path_factory) -> tuple[Path, str, str]:
    """A folder for PYTHONPATH, the name of the task, and the prefix of the modules."""
    if request.param == "folder":
        return EXAMPLES, "task:SHARPNESS", ""
    files = {name: EXAMPLES / f"{name}.py" for name in MODULES}
    entries = {"sharpness": "my_pkg.task:SHARPNESS"}
    return pip_installed(tmp_path_factory.mktemp("pip"), "my_pkg", files, entries), "sharpness", "my_pkg."


def test_labels_become_rows_rewards_metrics_reports_scores_and_answers(outside, tmp_path):
    path, task, prefix = outside
    words = ["--root", str(photos(tmp_path / "photos")), "--out", str(tmp_path / "data"), "--data-source", "mine"]
    words += ["--reader", f"{prefix}reader:read", "--task", task, "--low", "0", "--high", "100"]
    said = run([str(REPO / "data_prep/manifest.py"), *words, "--workers", "2", "--shard-rows", "2"], path, tmp_path)
    assert "mine: 12 rows, 1 rejects (label 1" in said
    card = json.loads((tmp_path / "data/dataset_card.json").read_text())
    assert (card["task"], card["label_map"]["scale"]) == (task, [0.0, 10.0])
    assert card["options"]["reader"] == f"{prefix}reader:read"
    for shard in (tmp_path / "data").glob("*.parquet"):
        if shard.name.startswith("test") and "-00000-" in shard.name:
            shard.rename(shard.with_name("test.parquet"))

    script = str(REPO / "tests/builders/extending_walk.py")
    said = run([script, str(tmp_path / "data"), task, prefix], f"{path}:{REPO / 'tests'}", tmp_path)
    found = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    assert found["rows"] == 12 and all("ow sharp" in one and "10" in one for one in found["prompts"])
    assert found["rewards"] == pytest.approx([1 - (0.5 / 2) ** 2] * 12)  # half a point off, squared
    assert found["metrics"][f"val-core/mine/{task}/srcc"] > 0.9
    assert found["metrics"]["val-aux/mine/technical/answers"] == 1.0
    ((name, figures),) = found["eval"].items()
    assert (name, figures["task"], figures["images"], figures["status"]) == ("mine", task, 2, {"ok": 2})
    assert found["scored"] == {"task": task, "score": 10.0, "level": "excellent", "both": sorted([task, "technical"])}
    assert found["served"]["scores"] == {task: 10.0} and found["served"]["high"] == 10.0
    status, detail, imported = found["served"]["rejected"]
    assert status == 422 and "unknown task 'tabnanny:check'" in detail and not imported


def test_a_reader_is_asked_for_scores_only_where_there_are_some(tmp_path, monkeypatch):
    root, script = photos(tmp_path / "photos"), str(REPO / "data_prep/manifest.py")
    (tmp_path / "worn.py").write_text(
        "from omniq_verl.preparation.build import Item\n"
        "def read(request):\n"
        "    assert request.task == 'degradation'\n"
        "    yield Item('train/0.png', 'train', distortion='blur', severity='slight')\n"
        "    yield Item('train/1.png', 'train')\n"
    )
    words = [script, "--root", str(root), "--out", str(tmp_path / "data"), "--data-source", "mine"]
    words += ["--reader", "worn:read", "--task", "degradation"]
    assert "mine: 2 rows, 0 rejects" in run(words, tmp_path, tmp_path)
    assert "--low has no effect where no scores are asked for" in run([*words, "--low", "0"], tmp_path, tmp_path, 2)
    words[-1] = "technical"
    assert "--low and --high are missing. Fix" in run(words, tmp_path, tmp_path, 1)
    assert "unrecognized arguments: --seed" in run([*words, "--seed", "1"], tmp_path, tmp_path, 2)
    words[words.index("worn:read")] = "worn:nothing"
    said = run(words, tmp_path, tmp_path, 1)
    assert "--reader is 'worn:nothing', and worn has no nothing" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["score_reward=reward:closeness"], None),
        (["score_reward=reward:closeness", "+score_settings.power=2"], None),
        (["+sources.mine.score_reward=reward:closeness"], None),
        (["score_reward=reward:closness"], "and reward has no closness (it has closeness). Fix: correct the name"),
        (["score_reward=reward:closeness", "+score_settings.powers=2"], "unexpected keyword argument 'powers'"),
        (["score_reward=reward:closeness", "+score_settings.reach=0"], "fails for pred=1 and target=1: ZeroDivision"),
        (["score_reward=reward:closeness", "+score_settings.power=-1"], "ZeroDivisionError"),
        (["+score_settings.power=2"], "score_settings has no effect with score_reward=gaussian. Fix: remove it"),
        (["+sources.mine.score_reward=nowhere:f"], "reward_kwargs.sources.mine: reward.custom_reward_function"),
    ],
)
def test_the_doctor_tries_a_reward_before_the_training(monkeypatch, settings, said):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    overrides = [re.sub(r"(\+?)(.*)", rf"\g<1>{REWARD}.\g<2>", one, count=1) for one in settings]
    problems = check_settings(composed("quickstart/grpo", *overrides))
    assert len(problems) == (0 if said is None else 1)
    assert said is None or (said in str(problems[0]) and "Fix: " in str(problems[0]))


def test_a_selector_picks_the_best_of_n_and_is_compared(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("a fox\na cat\n")
    words = ["t2i", "best-of-n", "texts.txt", "--generator", PAINTER, "--model", "", "--engine", RATER]
    words += ["--weight", "alignment=1", "--weight", "task:SHARPNESS=1", "--n", "3", "--out", "out"]
    done = CliRunner().invoke(app, [*words, "--selector", "selector:worst_task"])
    assert done.exit_code == 0, done.output
    for line in map(json.loads, Path("out/picks.jsonl").read_text().splitlines()):
        scores = [min(pair) for pair in zip(*line["scores"].values(), strict=True)]
        assert set(line["scores"]) == {"alignment", "task:SHARPNESS"} and line["best"] == scores.index(max(scores))
    chosen = json.loads(Path("out/provenance.json").read_text())["chosen_by"]
    assert chosen["selector"] == "selector:worst_task"
    both = [*words, "--selector", "selector:worst_task", "--order", "alignment"]
    assert "--order has no effect with --selector" in CliRunner().invoke(app, both, env={"COLUMNS": "300"}).output
    compared = ["t2i", "selectors", "out", "--selector", "alignment=1", "--selector", "task:SHARPNESS=2"]
    compared += ["--selector", "selector:worst_task", "--selector", "mine:selector:worst_task"]
    done = CliRunner().invoke(app, compared, env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    names = {"alignment", "2task.SHARPNESS", "selector.worst_task", "mine", "table.json"}
    assert {path.name for path in Path("out/selected").iterdir()} == names
    plain = CliRunner().invoke(app, ["t2i", "selectors", "out"], env={"COLUMNS": "300"})
    assert plain.exit_code == 0 and "alignment+task.SHARPNESS" in plain.output
    done = CliRunner().invoke(app, [*words[:-1], "other", "--selector", "selector:nothing"])
    assert done.exit_code == 1 and "--selector is 'selector:nothing'" in done.output and not Path("other").exists()


def test_the_server_names_a_task_that_is_not_there():
    words = ["serve", "--model", "x", "--task", "task:BLUR", "--engine", "engine:open_async"]
    found = CliRunner().invoke(app, words, env={"COLUMNS": "300"})
    assert found.exit_code == 1 and "--task is 'task:BLUR'" in found.output and serve is not None


def test_the_text_names_every_file_and_the_page_shows_every_kind():
    text = (EXAMPLES / "README.md").read_text()
    for name in MODULES:
        assert f"({name}.py)" in text and (EXAMPLES / f"{name}.py").is_file()
    page = (EXAMPLES.parents[1] / "docs" / "extending.md").read_text()
    assert set(MODULES) <= set(re.findall(r"\bmy_(\w+):\w+", page))
