"""Costs before the start: scaled from measured figures, with their sources."""

from dataclasses import replace

import pytest
from model_sizes import QWEN_3B, QWEN_7B

from omniq_verl.doctor.compose import compose_recipe
from omniq_verl.doctor.free_space import FreeSpace
from omniq_verl.doctor.gpu_memory import GIB
from omniq_verl.packaged import RECIPES
from omniq_verl.pipeline import cost
from omniq_verl.pipeline.cost import Cost, estimate, model_sizes, scaled
from omniq_verl.pipeline.cost_report import size, totals
from omniq_verl.pipeline.experiments import build
from omniq_verl.pipeline.stage import Stage, Work


def compose(name, overrides):
    return compose_recipe(name, overrides, RECIPES)


def test_a_step_grows_with_answers_and_parameters_and_shrinks_with_gpus():
    assert scaled(10.0, 128, QWEN_3B, 1) == 10.0
    assert scaled(10.0, 1024, QWEN_3B, 4) == 20.0
    assert scaled(10.0, 128, QWEN_7B, 1) == pytest.approx(10 * QWEN_7B.parameters / QWEN_3B.parameters)


def stage_of(experiment: str, name: str, scale: str, tmp_path) -> Stage:
    stages = build(experiment, scale, tmp_path, [0], None, None).stages
    return next(stage for stage in stages if stage.name == name)


def test_a_training_at_real_size(tmp_path):
    found = estimate(stage_of("omniquality_r", "seed0/stage2", "paper", tmp_path), compose)
    # 27,000 rows in batches of 64, twice: 842 steps; 1,024 answers are 8 times the measured step's 128.
    step = (25 + 13 + 13 + 31) * 8 * QWEN_7B.parameters / QWEN_3B.parameters / 4
    assert found.hours == pytest.approx((842 * step + 22) / 3600) and found.gpus == 4
    assert found.gpu_hours == pytest.approx(4 * found.hours)
    # Two whole checkpoints, and the weights of the best one.
    assert found.disk == (2 * 20 + 4) * QWEN_7B.parameters and found.peak_disk == 20 * QWEN_7B.parameters
    assert 48 * GIB <= found.gpu_memory < 80 * GIB and found.host > 200 * GIB
    assert "842 steps" in found.source and "docs/benchmarks.md" in found.source


def test_what_a_run_pays_once_does_not_grow_with_its_steps(tmp_path):
    stage = stage_of("omniquality_r", "seed0/stage2", "paper", tmp_path)
    once, twice = (estimate(replace(stage, steps=steps), compose).hours for steps in (400, 800))
    step = scaled(25 + 13 + 13 + 31, 64 * 16, QWEN_7B, 4)
    assert twice - once == pytest.approx(400 * step / 3600)


def test_supervised_training_at_real_size(tmp_path):
    found = estimate(stage_of("omniquality_r", "seed0/sft", "paper", tmp_path), compose)
    flops = 6 * QWEN_7B.parameters * 1300 * 41_183
    assert found.hours == pytest.approx(flops / (989e12 * 0.28 * 4) / 3600)


def test_answers_cost_their_images_and_their_tokens():
    stage = Stage("x", "", ["python", "-m", "omniq_verl.cli", "eval"], gpus=2, work=Work(760, 128, 256))
    hours = (760 / 7.6 / 2 + 25 * QWEN_7B.parameters / QWEN_3B.parameters / 2 / 2) / 3600
    assert estimate(stage, compose).hours == pytest.approx(hours)


def test_the_tiny_size_takes_what_was_measured_on_two_cores(tmp_path):
    training = estimate(stage_of("omniquality_r", "seed0/table4/stage1_0", "tiny", tmp_path), compose)
    assert training.hours == pytest.approx((20 + 10 * 19) / 3600) and training.gpu_hours == 0
    stages = build("omniquality_r", "tiny", tmp_path, [0], None, None).stages
    assert sum(estimate(stage, compose).hours for stage in stages) < 75 / 60


def test_a_link_costs_nothing(tmp_path):
    assert estimate(stage_of("q_insight", "seed0/joint_model", "paper", tmp_path), compose).hours == 0


def test_the_half_size_model_is_estimated_as_such(tmp_path):
    assert model_sizes("Qwen/Qwen2.5-VL-3B-Instruct")[0] is QWEN_3B and model_sizes("/some/model")[0] is QWEN_7B
    large, small = (
        estimate(stage_of("rali", f"seed0/{name}", "paper", tmp_path), compose)
        for name in ("q_insight", "q_insight_3b")
    )
    assert small.hours < large.hours and small.disk < large.disk


@pytest.mark.parametrize("name", ["cot", "sft", "sft_test", "stage2", "stage2_test", "q_align_test"])
def test_all_stages_are_estimated_by_the_size_of_the_base_model(tmp_path, name):
    plans = [build("omniquality_r", "paper", tmp_path, [0], None, model) for model in (None, "Qwen2.5-VL-3B")]
    large, small = (
        estimate(next(stage for stage in plan.stages if stage.name == f"seed0/{name}"), compose) for plan in plans
    )
    ratio = QWEN_3B.parameters / QWEN_7B.parameters
    assert small.hours == pytest.approx(ratio * large.hours, rel=0.1)  # a step's 22 s for the weights stay
    assert small.disk == (large.disk if name == "cot" or "test" in name else pytest.approx(ratio * large.disk))


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "-"), (1, "under 1 MiB"), (2**20, "1.0 MiB"), (1.5 * GIB, "1.5 GiB"), (2048 * GIB, "2.0 TiB")],
)
def test_sizes_are_short(count, text):
    assert size(count) == text


def test_totals_add_hours_and_disk_and_say_what_this_machine_lacks():
    costs = [Cost(2.0, 4, 10 * GIB, 5 * GIB, 300 * GIB), Cost(1.0, 0, 1 * GIB, 7 * GIB, 10 * GIB)]
    said = totals(costs, FreeSpace(memory=64 * GIB, shared_memory=0, disk=17 * GIB, gpus=(80 * GIB,)))
    assert said[0].startswith(
        "all stages one after the other: 3.0 h, 8 GPU-hours; disk 18.0 GiB; host memory 300.0 GiB"
    )
    assert any("4 GPUs are needed, 1 are here" in one for one in said)
    assert any("not on this disk: 17.0 GiB" in one for one in said) and any("64.0 GiB" in one for one in said)
    plenty = totals(costs, FreeSpace(memory=1e15, shared_memory=0, disk=1e15, gpus=(1,) * 4))
    assert not any(one.startswith("not ") for one in plenty)


def test_the_constants_are_those_of_the_benchmarks():
    text = (RECIPES.parent / "docs" / "benchmarks.md").read_text()
    steps = " / ".join(f"{seconds:.0f}" for seconds in cost.STEP_SECONDS.values())
    assert f"{steps} s" in text and f"{cost.IMAGES_PER_SECOND} images/s" in text
    assert f"{cost.CLIP_PER_SECOND:.0f} images/s" in text and f"MFU {cost.MFU:.0%}" in text
