"""What the page about the installation promises: the estimates, and the driver of the pinned wheels."""

import re
from pathlib import Path

import pytest
from docs_builders import DOCS, REPO, tables

from omniq_verl.doctor.compose import compose_recipe
from omniq_verl.doctor.gpu_memory import GIB
from omniq_verl.packaged import RECIPES
from omniq_verl.pipeline.cost import estimate
from omniq_verl.pipeline.experiments import build
from omniq_verl.pipeline.qwen_sizes import QWEN_3B, QWEN_7B

PAGE = "install.md"
STAGES = {
    "`omniquality_r/sft`": ("omniquality_r", "sft"),
    "`omniquality_r/stage1`, and `stage2` likewise": ("omniquality_r", "stage1"),
    "`q_insight/joint`": ("q_insight", "joint"),
    "`q_insight/score_only`": ("q_insight", "score_only"),
    "`ract/sft`, on the texts of four data sets": ("ract", "ract"),
}
"""Rows of the table, and the stage of `omniq reproduce` that each is about."""


def row(recipe: str) -> list[str]:
    (found,) = [row for table in tables(Path("docs") / PAGE) for row in table.rows if row[0] == recipe]
    return list(found[1:])


@pytest.mark.parametrize("recipe", STAGES)
def test_needs_of_a_recipe_are_those_that_reproduce_prints(recipe):
    experiment, name = STAGES[recipe]
    stages = {stage.name: stage for stage in build(experiment, "paper", Path("/x"), [0], None, None).stages}
    cost = estimate(stages[f"seed0/{name}"], lambda recipe, overrides: compose_recipe(recipe, overrides, RECIPES))
    memory = [f"{size / GIB:.0f} GiB" if size else "not estimated" for size in (cost.gpu_memory, cost.host)]
    hours = f"{cost.hours:.1f} hours" if cost.hours < 1 else f"{cost.hours:.0f} hours"
    assert row(recipe) == [*memory, f"{cost.disk / GIB:.0f} GiB", hours]


def test_weights_have_the_size_of_their_parameters():
    text = " ".join((DOCS / PAGE).read_text().split())
    for size, shape in (("7B", QWEN_7B), ("3B", QWEN_3B)):
        assert re.search(rf"{size} model (take )?{2 * shape.parameters / GIB:.1f} GiB", text), size


def test_the_driver_is_that_of_the_pinned_cuda():
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (REPO / "constraints" / "gpu.txt").read_text(), re.MULTILINE))
    text = " ".join((DOCS / PAGE).read_text().split())
    major, minor = pins["nvidia-cuda-runtime"].split(".")[:2]
    assert f"The pinned wheels are built for CUDA {major}.{minor}" in text
    least = {"12": 525, "13": 580}[major]  # NVIDIA's table of minor version compatibility, which the page links
    assert f"at least {least} for CUDA {major}.x" in text and f"version {least} or newer" in text
