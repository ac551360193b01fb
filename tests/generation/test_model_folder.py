"""Which model folders are opened."""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.generation.engines import open_engine
from omniq_verl.generation.model_folder import UnsafeModel, check_model_folder, weights_mark
from omniq_verl.generation.spec import EngineSpec


@cache
def weights() -> tuple[Qwen2Config, dict[str, torch.Tensor]]:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = Qwen2Config(num_hidden_layers=1, vocab_size=16, architectures=["Qwen2ForCausalLM"], **sizes)
    return config, Qwen2ForCausalLM(config).state_dict()


def folder(tmp_path: Path, *files: str, **settings) -> str:
    config, tensors = weights()
    (tmp_path / "config.json").write_text(json.dumps({**config.to_dict(), **settings}))
    for name in files:
        if name.endswith(".safetensors"):
            save_file(tensors, tmp_path / name)
        else:
            torch.save(tensors, tmp_path / name)
    return str(tmp_path)


def test_safetensors_are_opened_whatever_lies_beside_them(tmp_path):
    model = folder(tmp_path, "model.safetensors", "optimizer.pt")
    (tmp_path / "training_args.bin").write_bytes(b"no tensors")
    check_model_folder(model)


def test_a_hub_name_passes(tmp_path):
    check_model_folder("Qwen/Qwen2.5-VL-7B-Instruct")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickled_weights_are_rejected_unless_asked_for(tmp_path, name):
    model = folder(tmp_path, name)
    with pytest.raises(UnsafeModel, match=rf"{name}.*--allow-pickle"):
        check_model_folder(model)
    check_model_folder(model, allow_pickle=True)


def test_no_weights_are_named(tmp_path):
    with pytest.raises(UnsafeModel, match="no weights"):
        check_model_folder(folder(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer_config.json"])
def test_code_of_its_own_is_rejected_unless_asked_for(tmp_path, name):
    model = folder(tmp_path, "model.safetensors")
    settings = json.loads((tmp_path / name).read_text()) if name == "config.json" else {}
    (tmp_path / name).write_text(json.dumps({**settings, "auto_map": {"AutoProcessor": "evil.Processor"}}))
    with pytest.raises(UnsafeModel, match=rf"{name}.*--trust-remote-code"):
        check_model_folder(model)
    check_model_folder(model, trust_remote_code=True)


def test_what_is_no_json_file_asks_for_no_code(tmp_path):
    model = folder(tmp_path, "model.safetensors")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "nowhere.json").symlink_to(tmp_path / "gone")
    check_model_folder(model)


def test_settings_that_are_no_object_are_left_to_whoever_loads_them(tmp_path):
    model = folder(tmp_path, "model.safetensors")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text('["auto_map"]')
    check_model_folder(model)


@pytest.mark.parametrize("kind", ["vllm", "hf"])
def test_engines_look_before_they_load(tmp_path, kind):
    with pytest.raises(UnsafeModel, match="pickle"):
        open_engine(EngineSpec(folder(tmp_path, "pytorch_model.bin"), kind))
    with pytest.raises(ValueError, match="no such folder"):
        open_engine(EngineSpec("/no/such/model", kind))
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no config\.json"):
        open_engine(EngineSpec(str(tmp_path), kind))


def test_weights_are_told_apart_by_what_they_hold(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "model.safetensors").write_bytes(before := rng.bytes(2**21))
    mark = weights_mark(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(before)
    assert weights_mark(tmp_path) == mark
    for ref in (0, 2**20, 2**21 - 1):
        after = bytearray(before)
        after[ref] ^= 1
        (tmp_path / "model.safetensors").write_bytes(after)
        assert weights_mark(tmp_path) != mark
    (tmp_path / "model.safetensors").write_bytes(before[:-1])
    assert weights_mark(tmp_path) != mark
    assert weights_mark(tmp_path / "no folder") is None


@pytest.mark.parametrize("kind", ["vllm", "hf"])
def test_weights_trained_anew_are_another_model(tmp_path, kind):
    (tmp_path / "model.safetensors").write_bytes(b"before")
    before = EngineSpec(str(tmp_path), kind).identity()
    (tmp_path / "model.safetensors").write_bytes(b"after!")
    assert EngineSpec(str(tmp_path), kind).identity() != before
    assert EngineSpec("org/name", kind).identity()["weights"] is None


def run_folder(root: Path, below: str, steps: tuple[int, ...], latest: str | None) -> Path:
    for step in steps:
        (root / f"global_step_{step}" / below).mkdir(parents=True)
        (root / f"global_step_{step}" / below / "config.json").write_text("{}")
    if latest is not None:
        (root / "latest_checkpointed_iteration.txt").write_text(latest)
    return root


@pytest.mark.parametrize("below", ["huggingface", "actor/huggingface"])
@pytest.mark.parametrize(
    ("latest", "step"), [("20", 20), ("100\n", 100), (None, 100)], ids=["an older one", "the last", "not said"]
)
def test_of_a_run_the_newest_whole_checkpoint_is_taken(tmp_path, below, latest, step):
    run = run_folder(tmp_path / "run", below, (5, 20, 100), latest)
    expected = str(run / f"global_step_{step}" / below)
    assert EngineSpec(str(run)).model == EngineSpec(expected).model == expected
    assert EngineSpec(str(run / f"global_step_{step}")).model == expected
    assert EngineSpec(str(run / f"global_step_{step}" / below).split("/huggingface")[0]).model == expected


def with_best(run: Path, name: str = "best/global_step_5") -> Path:
    """A run that names its best checkpoint, as ``trainer.best_checkpoint`` writes it."""
    (run / name).mkdir(parents=True)
    (run / name / "config.json").write_text("{}")
    record = {"metric": "val-core/mean/srcc", "step": 5, "value": 0.9, "model": name}
    (run / "best_checkpoint.json").write_text(json.dumps(record))
    return run


def test_of_a_run_that_validated_the_best_checkpoint_is_taken_unless_another_is_named(tmp_path):
    run = with_best(run_folder(tmp_path / "run", "actor/huggingface", (20, 100), "100"))
    best = str(run / "best" / "global_step_5")
    assert EngineSpec(str(run)).model == EngineSpec(str(run / "best")).model == EngineSpec(best).model == best
    assert EngineSpec(str(run / "global_step_100")).model == str(run / "global_step_100/actor/huggingface")
    (run / "best_checkpoint.json").write_text('{"metric": "val-core/mean/srcc", "validated": {"5": null}}')
    assert EngineSpec(str(run)).model == str(run / "global_step_100/actor/huggingface")


@pytest.mark.parametrize("record", ["[" * 10_000, "null", "[]", "7", "", "{", '{"validated": {}}', "\x00\xff"])
def test_a_record_that_names_nothing_leaves_the_newest_checkpoint(tmp_path, record):
    run = run_folder(tmp_path / "run", "huggingface", (5,), "5")
    (run / "best_checkpoint.json").write_text(record)
    assert EngineSpec(str(run)).model == str(run / "global_step_5/huggingface")


@pytest.mark.parametrize("name", ["best/global_step_7", "../outside", "/", "a\0b", 7, None, {"a": 1}])
def test_a_best_checkpoint_that_is_gone_or_outside_is_an_error_that_lists_what_there_is(tmp_path, name):
    run = run_folder(tmp_path / "run", "huggingface", (5, 20, 100, 110), "100")
    with_best(tmp_path, "outside")
    (run / "best_checkpoint.json").write_text(json.dumps({"model": name}))
    others = " or ".join(f"{run}/global_step_{step}/huggingface" for step in (110, 100, 20))
    with pytest.raises(ValueError, match=rf"best_checkpoint.json names it.* Fix: name a checkpoint, such as {others}$"):
        EngineSpec(str(run))


def test_a_folder_without_a_model_is_rejected_with_what_there_is(tmp_path):
    run = run_folder(tmp_path / "run", "huggingface", (5,), "7")
    with pytest.raises(ValueError, match=rf"Fix: name a checkpoint, such as {run}/global_step_5/huggingface$"):
        EngineSpec(str(run)).check()
    with_best(run)
    with pytest.raises(ValueError, match=rf"such as {run}/best/global_step_5 or {run}/global_step_5/huggingface$"):
        check_model_folder(str(run))  # as verl gets it, which takes no run
    shutil.rmtree(run / "best")
    (run / "best_checkpoint.json").unlink()
    (run / "global_step_5/huggingface/config.json").unlink()
    with pytest.raises(ValueError, match=r"its steps \(5\) have no model in Hugging Face's format; train with"):
        EngineSpec(str(run)).check()
    with pytest.raises(ValueError, match=r"no config.json. Fix: name the folder that holds config.json$"):
        EngineSpec(str(run / "global_step_5")).check()


@pytest.mark.parametrize("below", ["checkpoint-500", "snapshots/1f2e"])
def test_a_folder_of_another_program_is_answered_with_the_model_in_it(tmp_path, below):
    (tmp_path / "run" / below).mkdir(parents=True)
    (tmp_path / "run" / below / "config.json").write_text("{}")
    with pytest.raises(
        ValueError, match=rf"no config.json. Fix: name the folder that holds it, such as .*run/{below}$"
    ):
        EngineSpec(str(tmp_path / "run")).check()


def test_what_is_no_run_stays_as_it_is_and_a_checkpoint_without_a_model_is_no_older_one(tmp_path):
    assert EngineSpec("owner/name").model == "owner/name"
    assert EngineSpec(str(tmp_path / "missing")).model == str(tmp_path / "missing")
    run = run_folder(tmp_path / "run", "huggingface", (5,), "7")
    assert EngineSpec(str(run)).model == str(run)  # whose check says that there is no config.json
    assert EngineSpec(str(run), "openai").model == str(run)


def test_the_command_says_which_checkpoint_it_takes(tmp_path):
    run_folder(tmp_path / "run", "huggingface", (5, 20), "5")
    (tmp_path / "a.png").write_bytes(b"")
    words = ["score", str(tmp_path / "a.png"), "--engine", "hf", "--model", str(tmp_path / "run")]
    found = CliRunner().invoke(app, words)
    assert f"model: {tmp_path}/run/global_step_5/huggingface (the newest checkpoint of" in found.stderr
    with_best(tmp_path / "run")
    found = CliRunner().invoke(app, words)
    line = f"model: {tmp_path}/run/best/global_step_5 (the best checkpoint by val-core/mean/srcc of {tmp_path}/run)"
    assert line in found.stderr
    shutil.rmtree(tmp_path / "run" / "best")
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 1 and f"Fix: name a checkpoint, such as {tmp_path}/run/global_step_20" in found.output
