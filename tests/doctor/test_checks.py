"""Preflight checks of a whole run: settings, model, space, and the places they are called from."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doctor_builders import RECIPES, checkpoint, composed, records, tiny_model, written
from omegaconf import DictConfig, OmegaConf
from typer.testing import CliRunner, Result

from omniq_verl.cli import app
from omniq_verl.doctor.checks import check_config
from omniq_verl.doctor.free_space import FreeSpace, cgroup_free_bytes, measure_free_space
from omniq_verl.doctor.model_checks import inspect_model
from omniq_verl.doctor.preflight_hydra import Preflight
from omniq_verl.doctor.prompt_length import processor_problem
from omniq_verl.doctor.space import GIB, needed_memory

PLENTY = FreeSpace(memory=math.inf, shared_memory=math.inf, disk=math.inf)
BUCKET = "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def config(model: Path, tmp_path: Path) -> DictConfig:
    """A sound configuration of its own for each test."""
    sound = OmegaConf.create(OmegaConf.to_container(composed("quickstart/grpo")))
    sound.data.train_files = written(tmp_path, records(40))
    sound.data.val_files = [written(tmp_path, records(3, 40), "val.parquet")]
    sound.actor_rollout_ref.model.path = str(model)
    sound.trainer.default_local_dir = str(tmp_path / "run")
    return sound


def problems(config: DictConfig, free: FreeSpace = PLENTY) -> list[str]:
    return [str(problem) for problem in check_config(config, free).problems]


# Configuration and model


def test_a_sound_configuration_has_no_problem(config):
    report = check_config(config, PLENTY)
    assert report.problems == []
    assert report.summary() == f"2 files, 43 rows; longest prompt {report.longest_prompt} tokens: no problem found"
    assert 50 < report.longest_prompt <= config.data.max_prompt_length


@pytest.mark.parametrize("value", ["???", None])
@pytest.mark.parametrize("key", ["data.train_files", "actor_rollout_ref.model.path", "trainer.default_local_dir"])
def test_a_key_without_value_is_named(config, key, value):
    OmegaConf.update(config, key, value)
    expected = f"configuration key {key}: it has no value. Fix: pass it on the command line: {key}=VALUE."
    assert problems(config) == [expected]


@pytest.mark.parametrize("recipe", ["quickstart/grpo", "quickstart/sft"])
def test_a_file_that_is_trained_and_validated_on_is_reported_once(model, tmp_path, recipe):
    (tmp_path / "torn.parquet").write_bytes(b"no parquet")
    (tmp_path / "link.parquet").symlink_to(tmp_path / "torn.parquet")
    config = OmegaConf.create(OmegaConf.to_container(composed(recipe)))
    config.data.train_files = str(tmp_path / "torn.parquet")
    config.data.val_files = [str(tmp_path / "torn.parquet"), str(tmp_path / "link.parquet")]
    OmegaConf.update(config, "model.path" if recipe.endswith("sft") else "actor_rollout_ref.model.path", str(model))
    config.trainer.default_local_dir = str(tmp_path / "run")
    report = check_config(config, PLENTY)
    assert report.files == 1 and len([one for one in report.problems if "cannot be read as parquet" in one.what]) == 1


def test_a_model_folder_that_does_not_exist_is_named(config, tmp_path):
    config.actor_rollout_ref.model.path = f"{tmp_path}/none"
    (text,) = problems(config)
    assert f"actor_rollout_ref.model.path={tmp_path}/none: there is no such folder" in text


def test_a_hub_id_is_left_alone():
    assert inspect_model("Qwen/Qwen2.5-VL-7B-Instruct").problems == []


def test_a_model_path_that_ends_with_a_slash_is_rejected(model):
    (problem,) = inspect_model(f"{model}/").problems
    assert f"actor_rollout_ref.model.path={model}." in str(problem)


def test_parameters_are_counted_from_the_headers(model):
    written_down = json.loads((model / "tiny_model.json").read_text())
    assert inspect_model(str(model)).parameters == written_down["parameters"]


def test_weights_that_are_cut_off_are_named(model, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-100])
    (problem,) = inspect_model(str(tmp_path)).problems
    assert "the weights cannot be read" in str(problem)


def test_a_model_without_processor_is_named(config, model, tmp_path):
    (tmp_path / "text").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (tmp_path / "text" / name).write_bytes((model / name).read_bytes())
    config.actor_rollout_ref.model.path = str(tmp_path / "text")
    (text,) = problems(config)
    assert "its processor cannot be loaded" in text


def test_dummy_weights_are_rejected(config):
    config.actor_rollout_ref.rollout.load_format = "dummy"
    (text,) = problems(config)
    assert "set actor_rollout_ref.rollout.load_format=auto" in text


@pytest.mark.parametrize(("batch", "most", "rows"), [(41, -1, 40), (32, 20, 20)])
def test_a_batch_larger_than_the_data_is_rejected(config, batch, most, rows):
    config.data.train_batch_size, config.data.train_max_samples = batch, most
    (text,) = problems(config)
    assert f"data.train_batch_size={batch}: there are only {rows} training rows" in text


# Space


def broken(model: Path, folder: Path, name: str) -> None:
    """The model without a file, or as one of another kind."""
    shutil.copytree(model, folder)
    if name == "qwen2":
        told = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**told["text_config"], "model_type": "qwen2"}))
    elif name == "index":
        weights = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(weights))
    else:
        for path in folder.glob(name):
            path.unlink()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("*.safetensors", "lacks its weights (there is no model.safetensors)"),
        ("index", "lacks its weights (model-00001-of-00002.safetensors is missing)"),
        ("tokenizer*", "its tokenizer knows no words"),
        ("qwen2", "which takes no images"),
    ],
)
def test_a_model_folder_that_cannot_train_is_named(config, model, tmp_path, name, said):
    broken(model, tmp_path / "broken", name)
    config.actor_rollout_ref.model.path = str(tmp_path / "broken")
    assert any(said in problem for problem in problems(config)), problems(config)


def test_rows_that_are_trained_on_twice_or_validated_on_as_well_are_noted(config):
    config.data.val_files = [*config.data.val_files, config.data.train_files]
    config.data.train_files = [config.data.train_files, config.data.train_files]
    report = check_config(config, PLENTY)
    assert not report.problems
    assert report.notes[0] == "40 rows appear in more than one of data.train_files"
    assert report.notes[1].startswith("40 rows of data.val_files also appear in data.train_files")


def test_a_run_that_would_go_on_from_a_checkpoint_is_noted(config):
    folder = Path(config.trainer.default_local_dir)
    actor = checkpoint(folder, 1)
    (note,) = check_config(config, PLENTY).notes
    assert note.startswith(f"{actor}: the run will resume after step 1, not from actor_rollout_ref.model.path, which")
    config.trainer.resume_mode = "disable"
    (note,) = check_config(config, PLENTY).notes
    assert "start from the beginning at step 0, as trainer.resume_mode is disable" in note


def test_rewards_of_a_source_that_no_row_is_of_are_named(config):
    config.reward.custom_reward_function.reward_kwargs.sources = {"koniq": {"sigma": 1}, "konik": {"sigma": 2}}
    (problem,) = problems(config)
    assert "sources.konik" in problem and "only of koniq" in problem


def test_rewards_of_a_source_that_is_only_validated_on_are_fine(config, tmp_path):
    other = [{**row, "data_source": "spaq"} for row in records(2, 90)]
    config.data.val_files = [written(tmp_path, other, "other.parquet")]
    config.reward.custom_reward_function.reward_kwargs.sources = {"spaq": {"sigma": 1}}
    assert problems(config) == []


@pytest.mark.parametrize("value", ["abc", 0, -4, 2.5, True])
@pytest.mark.parametrize("key", ["data.train_batch_size", "actor_rollout_ref.rollout.n"])
def test_what_is_no_whole_number_above_0_is_named(config, key, value):
    OmegaConf.update(config, key, value)
    assert f"{key}={value}: it is not a whole number above 0. Fix: give one, e.g. {key}=8." in problems(config)


def test_a_run_folder_below_a_file_is_named(config, tmp_path):
    (tmp_path / "file").write_text("")
    config.trainer.default_local_dir = str(tmp_path / "file" / "run")
    [problem] = problems(config)
    assert f"{tmp_path}/file is a file, not a folder" in problem


def test_a_mistyped_folder_that_could_be_a_name_at_the_hub_is_said_not_to_be_here(tmp_path):
    said = "there is no such folder here, and the processor of a model with that name on the hub cannot be loaded (why)"
    assert said in str(processor_problem("model.path", "runs/mistyped", OSError("why")))
    assert said not in str(processor_problem("model.path", str(tmp_path), OSError("why")))


def test_a_checkpoint_of_other_gpus_is_named_before_anything_starts(config):
    folder = Path(config.trainer.default_local_dir)
    checkpoint(folder, 1, ranks=16)
    [problem] = problems(config)
    assert "step 1 was saved by 16 GPUs, and the run has 1" in problem and "actor/huggingface" in problem
    checkpoint(folder, 1)
    assert problems(config) == []
    config.trainer.resume_mode = "disable"
    assert problems(config) == []


@pytest.mark.parametrize("mode", ["drop", "refill"])
def test_a_filter_that_could_keep_nothing_is_named(config, mode):
    config.actor_rollout_ref.rollout.n = 1
    config.data.gen_batch_size = 1
    (problem,) = problems(config)
    assert "has nothing to compare with" in problem
    config.trainer.v1.sampler.sampler_kwargs.mode = mode
    assert "a group of one answer has no spread" in problems(config)[0]


def test_memory_is_the_measured_peaks_of_the_tiny_model():
    assert needed_memory(1, 0, 1) / GIB == pytest.approx(7.4)
    assert needed_memory(2, 0, 1) / GIB == pytest.approx(10.6)


def test_too_little_memory_is_named(config, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    (text,) = problems(config, FreeSpace(3.1 * GIB, math.inf, math.inf))
    assert text.startswith("memory: the run needs about 8.4 GiB (1 worker")
    assert "3.1 GiB are free" in text


def test_memory_is_checked_for_a_gpu_run_only_where_the_gpus_are(config, monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    config.trainer.device = "cuda"
    assert problems(config, FreeSpace(0, 0, math.inf)) == []
    (text,) = problems(config, FreeSpace(0, 0, math.inf, gpus=(80 * GIB,)))
    assert text.startswith("memory: weights, optimiser state and reference") and "0.0 GiB are free" in text


def test_too_little_shared_memory_is_named(config):
    config.trainer.n_gpus_per_node = 2
    (text,) = problems(config, FreeSpace(math.inf, 127 * 2**20, math.inf))
    assert text.startswith("/dev/shm: sending weights to vLLM needs 0.12 GiB")
    assert problems(config, FreeSpace(math.inf, 128 * 2**20, math.inf)) == []


def test_a_bucket_smaller_than_the_largest_tensor_is_rejected(config):
    OmegaConf.update(config, BUCKET, 0)
    (text,) = problems(config)
    assert f"Fix: set {BUCKET}=1." in text


def test_too_little_disk_for_three_checkpoints_is_named(config, model):
    needed = (3 * 20 + 4) * inspect_model(str(model)).parameters  # and the best one's weights
    (text,) = problems(config, FreeSpace(math.inf, math.inf, needed - 1))
    assert "3 checkpoints and the best one's weights need about" in text
    assert problems(config, FreeSpace(math.inf, math.inf, needed)) == []


def test_free_space_is_measured_for_a_folder_that_does_not_exist_yet(tmp_path):
    free = measure_free_space(tmp_path / "not" / "yet")
    assert free.memory > 0
    assert free.disk > 0


GROUPS = {
    "version 2": ("0::/job", "", "memory.max", "memory.current", "inactive_file"),
    "version 1": ("4:memory:/job", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


@pytest.mark.parametrize("version", GROUPS)
def test_the_smallest_limit_of_the_control_groups_counts(tmp_path, version):
    line, below, limit, usage, cache = GROUPS[version]
    (tmp_path / "membership").write_text(f"1:cpu:/job\n{line}\n")
    for group, allowed in ((tmp_path / below, 1000), (tmp_path / below / "job", 500)):
        group.mkdir(parents=True, exist_ok=True)
        (group / limit).write_text(f"{allowed}\n")
        (group / usage).write_text("300\n")
        (group / "memory.stat").write_text(f"anon 200\n{cache} 100\n")
    assert cgroup_free_bytes(tmp_path, tmp_path / "membership") == 500 - 300 + 100


def test_a_control_group_without_limit_allows_everything(tmp_path):
    (tmp_path / "membership").write_text("0::/\n")
    for name, text in (("memory.max", "max"), ("memory.current", "300"), ("memory.stat", "inactive_file 100")):
        (tmp_path / name).write_text(text)
    assert cgroup_free_bytes(tmp_path, tmp_path / "membership") == math.inf


# Where it is called from


def test_the_preflight_lets_a_sound_run_pass(config, capsys, monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    config.trainer.device = "cuda"  # whatever memory this machine has
    config.hydra = {"job": {"num": "???"}}  # Hydra fills its own keys in later
    Preflight().on_run_start(config)
    assert "no problem found" in capsys.readouterr().err


def test_the_preflight_stops_a_bad_run_with_its_problems(config, capsys):
    config.actor_rollout_ref.rollout.load_format = "dummy"
    with pytest.raises(SystemExit) as stopped:
        Preflight().on_run_start(config)
    assert stopped.value.code == 1
    assert "load_format=dummy" in capsys.readouterr().err


def test_a_check_that_fails_by_itself_stops_the_run_through_hydra(config):
    from hydra._internal.callbacks import Callbacks

    callbacks = Callbacks()
    callbacks.callbacks = [Preflight()]
    config.data.train_max_samples = "many"
    with pytest.raises(SystemExit, match="a check itself failed"):
        callbacks.on_run_start(config=config, config_name="quickstart/grpo")


def test_a_single_run_is_checked_once(config, capsys):
    config.hydra = {"mode": "RUN"}
    config.actor_rollout_ref.rollout.load_format = "dummy"
    Preflight().on_job_start(config, task_function=None)
    assert capsys.readouterr().err == ""  # on_run_start has said it


def omniq(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", "--recipes", str(RECIPES), "quickstart/grpo", *arguments])


def overrides(config: DictConfig, train: str) -> list[str]:
    return [
        f"data.train_files={train}",
        f"data.val_files={config.data.val_files}",
        f"actor_rollout_ref.model.path={config.actor_rollout_ref.model.path}",
        f"trainer.default_local_dir={config.trainer.default_local_dir}",
        "trainer.device=cuda",
    ]


def test_the_command_says_what_it_checked(config):
    result = omniq(*overrides(config, config.data.train_files))
    memory, *_, checked = result.stdout.splitlines()
    assert result.exit_code == 0 and "2 files, 43 rows" in checked
    assert memory.startswith("memory per GPU, estimated in GiB: old log-probabilities 3.")  # little beside CUDA itself


def test_the_command_lists_problems_and_fails(config):
    result = omniq(*overrides(config, "none.parquet"))
    assert result.exit_code == 1
    assert "none.parquet: there is no such file" in result.stdout


def test_the_command_explains_a_wrong_key_without_a_traceback():
    result = omniq("data.no_such_key=1")
    assert result.exit_code == 2
    assert "no_such_key" in result.output
    assert "Traceback" not in result.output


def test_the_command_line_starts_without_heavy_imports():
    code = "import sys, omniq_verl.cli; print(sorted({'torch', 'hydra', 'transformers', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.slow
def test_training_with_a_broken_file_stops_before_ray(config, tmp_path):
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and no more")
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", str(RECIPES)]
    # The address makes Ray reject at once, should the preflight ever let this pass.
    command += ["--config-name", "quickstart/grpo", *overrides(config, str(broken))[:4]]
    command += ["+ray_kwargs.ray_init.address=nowhere:1"]
    result = subprocess.run(
        command, env={**os.environ, "VERL_PLATFORM": "cpu"}, capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert result.returncode == 1
    assert f"{broken}: the file cannot be read as parquet" in result.stderr
    assert "ray init kwargs" not in result.stdout + result.stderr
    assert not Path(config.trainer.default_local_dir).exists()
