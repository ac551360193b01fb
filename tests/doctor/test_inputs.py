"""The doctor looks at the columns, loggers and paths that the run will use."""

import math
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from doctor_builders import RECIPES, checkpoint, composed, records, tiny_model, written
from omegaconf import DictConfig, OmegaConf
from typer.testing import CliRunner

from omniq_verl import cli
from omniq_verl.cot.run import CotConfig
from omniq_verl.doctor.checks import check_config
from omniq_verl.doctor.compose import compose_recipe
from omniq_verl.doctor.free_space import FreeSpace
from omniq_verl.doctor.loggers import PACKAGES, check_loggers
from omniq_verl.generation.config import read_config
from omniq_verl.generation.spec import EngineSpec

PLENTY = FreeSpace(memory=math.inf, shared_memory=math.inf, disk=math.inf)
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{0:064d}\nsize 3754001152\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def config(model: Path, tmp_path: Path) -> DictConfig:
    sound = OmegaConf.create(OmegaConf.to_container(composed("quickstart/grpo")))
    sound.data.train_files = written(tmp_path, records(40))
    sound.data.val_files = [written(tmp_path, records(3, 40), "val.parquet")]
    sound.actor_rollout_ref.model.path = str(model)
    sound.trainer.default_local_dir = str(tmp_path / "run")
    return sound


def problems(config: DictConfig) -> list[str]:
    return [str(problem) for problem in check_config(config, PLENTY).problems]


def with_columns(path: str, **renamed: str) -> None:
    """Give columns of a file other names."""
    table = pq.read_table(path)
    pq.write_table(table.rename_columns([renamed.get(name, name) for name in table.column_names]), path)


# Columns


@pytest.mark.parametrize(("key", "column"), [("image_key", "images"), ("prompt_key", "prompt")])
def test_columns_of_other_names_are_those_that_are_checked(config, key, column):
    config.data[key] = "mine"
    found = problems(config)
    assert len(found) == 2 and all("the file lacks the column mine" in problem for problem in found), found
    for path in (config.data.train_files, *config.data.val_files):
        with_columns(path, **{column: "mine"})
    assert problems(config) == []
    config.data[key] = column
    assert all(f"the file lacks the column {column}" in problem for problem in problems(config))


def test_rows_in_columns_of_other_names_are_read(config, tmp_path):
    rows = records(40)
    rows[3]["images"] = [{"bytes": b"no image"}]
    config.data.train_files = written(tmp_path, rows, "broken.parquet")
    with_columns(config.data.train_files, images="mine")
    with_columns(config.data.val_files[0], images="mine")
    config.data.image_key = "mine"
    (problem,) = problems(config)
    assert "row 3" in problem and "the image does not decode" in problem


@pytest.mark.parametrize("key", ["messages_key", "image_key"])
def test_columns_of_sft_of_other_names_are_those_that_are_checked(model, tmp_path, key):
    from omniq_verl.doctor.sft import check_sft_config

    config = composed("quickstart/sft", f"model.path={model}", f"trainer.default_local_dir={tmp_path / 'run'}")
    prompt = records(1)[0]["prompt"]
    rows = [
        {"messages": [*prompt, {"role": "assistant", "content": "good"}], "images": one["images"]} for one in records(8)
    ]
    config.data.train_files, config.data.train_batch_size = written(tmp_path, rows), 4
    assert check_sft_config(config).problems == []
    OmegaConf.update(config, f"data.{key}", "mine", force_add=True)
    assert "the file lacks the column mine" in str(check_sft_config(config).problems[0])


def test_rows_that_verl_drops_are_counted_and_no_problem(config):
    longest = check_config(config, PLENTY).longest_prompt
    config.data.max_prompt_length = longest - 1
    assert any(f"data.max_prompt_length is {longest - 1}" in problem for problem in problems(config))
    config.data.filter_overlong_prompts = True
    report = check_config(config, PLENTY)
    dropped = [note for note in report.notes if "verl will drop" in note]
    assert dropped and "data.filter_overlong_prompts" in dropped[0]
    config.data.max_prompt_length = 1
    assert any("drop 40 of 40 rows" in note for note in check_config(config, PLENTY).notes)
    assert any("no row is left" in problem for problem in problems(config))


@pytest.mark.parametrize("folder", ["set[1]", "a*", "what?", "a::b"])
def test_a_path_that_verl_reads_as_a_pattern_is_named(config, tmp_path, folder):
    (tmp_path / folder).mkdir()
    config.data.train_files = written(tmp_path / folder, records(40))
    (problem,) = problems(config)
    assert folder in problem and "reads this path as a pattern" in problem and "rename" in problem


@pytest.mark.parametrize("name", ["train.pq", "train.PARQUET", "train"])
def test_a_file_whose_ending_verl_does_not_know_is_named(config, tmp_path, name):
    config.data.train_files = written(tmp_path, records(40), name)
    (problem,) = problems(config)
    assert name in problem and "rename it to end in .parquet" in problem


def test_data_that_is_a_git_lfs_pointer_is_named(config, tmp_path):
    (tmp_path / "train.parquet").write_text(POINTER)
    (problem,) = problems(config)
    assert "it is a Git LFS pointer" in problem and "git lfs pull" in problem


# Loggers


def test_the_loggers_are_those_of_verl():
    from verl.utils.tracking import Tracking

    assert PACKAGES.keys() == {*Tracking.supported_backend, "tracking"}


@pytest.mark.parametrize("name", ["wandb", "swanlab", "mlflow", "tensorboard", "clearml", "trackio", "rl_insight"])
def test_a_logger_that_is_not_installed_is_named(config, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("omniq_verl.doctor.loggers.find_spec", lambda package: None)  # as where it is not installed
    config.trainer.logger = ["console", name]
    (problem,) = check_loggers(config)
    assert problem.where == f"trainer.logger={name}" and f"pip install {name}" in problem.fix


@pytest.mark.parametrize("value", ["wandbb", ["console", "wandbb"]])
def test_a_logger_that_verl_does_not_know_is_named(config, value):
    config.trainer.logger = value
    (problem,) = problems(config)
    assert "trainer.logger=wandbb" in problem and "wandb," in problem


@pytest.mark.parametrize("value", ["console", ["console", "file"]])
def test_loggers_that_need_no_package_pass(config, value):
    config.trainer.logger = value
    assert check_loggers(config) == []


# Paths


@pytest.mark.parametrize(
    "key",
    [
        *("data.train_files", "data.val_files", "actor_rollout_ref.model.path", "trainer.default_local_dir"),
        *("actor_rollout_ref.model.tokenizer_path", "trainer.rollout_data_dir", "trainer.resume_from_path"),
    ],
)
def test_a_path_that_begins_with_the_home_folder_is_named(config, tmp_path, monkeypatch, key):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x").mkdir()
    OmegaConf.update(config, key, "~/x")
    found = [problem for problem in problems(config) if "verl does not replace ~" in problem]
    assert found and all(f"write {tmp_path}/x" in problem for problem in found)


def test_relative_paths_pass(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config.data.train_files, config.trainer.default_local_dir = "train.parquet", "run"
    checkpoint(tmp_path / "run", 1)
    report = check_config(config, PLENTY)
    assert report.problems == [] and any("run will resume after step 1" in note for note in report.notes)


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("~/x", "{home}/x"),
        ("--model=~/x", "--model={home}/x"),
        ("--model", "--model"),
        ("~", "~"),
        ("a~/x", "a~/x"),
        ("data.train_files=~/x", "data.train_files=~/x"),
        ("--prompt=about ~/x", "--prompt=about ~/x"),
    ],
)
def test_our_own_commands_know_the_home_folder(monkeypatch, tmp_path, word, expanded):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.expand_home(word) == expanded.format(home=tmp_path)


def test_settings_of_our_own_commands_know_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = read_config(CotConfig, None, ["out=~/out", "data=[~/a.parquet,b.parquet]", "engine.model=~/model"])
    assert (config.out, config.data) == (f"{tmp_path}/out", [f"{tmp_path}/a.parquet", "b.parquet"])
    assert config.engine.model == f"{tmp_path}/model"
    assert EngineSpec("~/model", "hf").model == f"{tmp_path}/model"
    assert EngineSpec("~/model", "openai").model == "~/model"  # the endpoint's own name for it


# Names of settings


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("data.train_batch_sise", "data.train_batch_size"),
        ("actor_rollout_ref.rolout.n", "actor_rollout_ref.rollout.n"),
        ("trainer.total_epoch", "trainer.total_epochs"),
    ],
)
@pytest.mark.parametrize("sign", ["", "+"])
def test_a_misspelt_setting_gets_the_nearest_name_with_and_without_a_plus(key, meant, sign):
    words = ["doctor", "quickstart/grpo", f"{sign}{key}=12", "--recipes", str(RECIPES)]
    if sign:
        from omniq_verl.doctor.unread.check import check_unread

        found = check_unread(compose_recipe("quickstart/grpo", [words[2]], RECIPES), [words[2]])[0]
        assert [problem.what for problem in found] == [f"there is no such setting (did you mean {meant}?)"]
    else:
        result = CliRunner().invoke(cli.app, words, env={"COLUMNS": "300"})
        assert result.exit_code == 2 and f"there is no such setting. Fix: use {meant}" in result.output
        assert f"+{key}" not in result.output


def test_a_recipe_is_composed_without_importing_verl_or_torch():
    code = (
        "import sys; from pathlib import Path; from omniq_verl.doctor.compose import compose_recipe;"
        f"compose_recipe('quickstart/grpo', [], Path({str(RECIPES)!r}));"
        "print(sorted({'torch', 'verl'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_test_rows_are_neither_trained_nor_validated_on(config, tmp_path):
    rows = records(3, 40)
    for row in rows[:2]:
        row["extra_info"]["split"] = "Test"
    config.data.val_files = [written(tmp_path, rows, "held.parquet")]
    (problem,) = check_config(config, PLENTY).problems
    assert problem.where.endswith("held.parquet") and problem.what.startswith("2 of its rows are from the test split")
    assert "data.val_files" in problem.fix
