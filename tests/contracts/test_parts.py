"""verl's SFT trainer on one part of a tiny model: what it leaves untouched, in the weights it saves."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from doctor_builders import png
from safetensors.numpy import load_file

from omniq_verl.data.parquet import write_parquet
from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.model import save_tiny_model

pytestmark = pytest.mark.slow
REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    save_tiny_model(root / "model", list(TECHNICAL.questions), [np.zeros((80, 80, 3), dtype=np.uint8)])
    answer = {"role": "assistant", "content": "<think>sharp</think><answer>3.8</answer>"}
    records = [
        {"messages": [{"role": "user", "content": "<image>Rate it."}, answer], "images": [{"bytes": png()}]}
        for _ in range(8)
    ]
    write_parquet(records, root / "sft.parquet")
    return root


@pytest.mark.parametrize("part", ["vision", "language"])
def test_an_engine_that_would_train_all_of_it_is_rejected(part):
    code = (
        "import verl.workers.engine.fsdp.transformer_impl\n"
        "from verl.workers.engine.base import EngineRegistry\n"
        "EngineRegistry.get_engine_cls('language_model', 'fsdp')()"
    )
    for platform in ({"VERL_PLATFORM": "cpu"}, {"VERL_ENGINE_DEVICE": "cuda"}):
        environment = {**os.environ, **platform, "VERL_ENGINE_VENDOR": f"omniq_{part}"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
        )
        assert "Fix: engine.strategy=fsdp2" in done.stderr, done.stderr[-2000:]


@pytest.mark.parametrize("part", ["vision", "language"])
def test_only_the_part_that_is_trained_changes(root, part):
    out = root / part
    words = [f"model.path={root}/model", f"data.train_files={root}/sft.parquet", f"trainer.default_local_dir={out}"]
    words += ["data.train_batch_size=4", "data.micro_batch_size_per_gpu=4", "trainer.total_training_steps=2"]
    command = [sys.executable, "-m", "verl.trainer.sft_trainer", "--config-dir", str(REPO / "recipes")]
    words += ["trainer.save_freq=2", "trainer.logger=[console]"]
    command += ["--config-name", f"ract/{part}_sft", "ract=cpu_tiny_sft", *words]
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    alone |= {"DIST_INIT_METHOD": "tcp://127.0.0.1:0", "VERL_PLATFORM": "cpu"}
    done = subprocess.run(command, env={**os.environ, **alone}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert f"{part} only: " in done.stdout
    before = load_file(root / "model" / "model.safetensors")
    after = load_file(out / "global_step_2" / "huggingface" / "model.safetensors")
    changed = {name for name, weights in before.items() if not np.array_equal(weights, after[name])}
    visual = {name for name in before if name.startswith("visual.") or ".visual." in name}
    assert changed and changed <= (visual if part == "vision" else before.keys() - visual)
    assert before.keys() == after.keys() and len(changed) > 10
