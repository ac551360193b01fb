"""Memory and operations of the findings by numbers worked out by hand, and a measurement of the smallest model."""

import math
from pathlib import Path

import pytest
from gpu_step_builders import benchmark_module

from omniq_verl.pipeline.qwen_sizes import QWEN_3B, QWEN_7B

cost = benchmark_module("findings_cost")
flops = benchmark_module("gpu_flops")
SHAPE = flops.ModelShape(
    **{"hidden": 8, "layers": 2, "query_width": 8, "key_width": 4, "mlp": 16, "vocabulary": 100},
    **{"vision_hidden": 4, "vision_layers": 1, "vision_mlp": 8, "vision_full_layers": 1},
    **{"patch_values": 1176, "merge": 2, "window": 4},
)
ASKED = cost.Asked(grid=(2, 3), words=10, answer=5, score=2)  # 21 tokens, 24 patches
LAYER = 24 * (8 * 4 + 6 * 8 + 6 * 1176) + 4 * 24 * 1176  # the tower's is larger than 21 * (8 * 8 + 6 * 16)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("attention", LAYER + 8 * 2 * 2 * 21),  # scores and weights, float32, 2 heads, 2 rows, 21 tokens
        ("hidden-states", LAYER + 2 * 3 * 8 * 21),  # bfloat16, what enters and what leaves 2 layers
        ("gate", LAYER + 2 * 5 * 100 + 16 * 5 * 100),
        ("no-reasoning", LAYER + 9 * 2 * 2 * 2 * 4 * 21),  # keys and values of 2 layers, nine times
        ("gradient", 4 * 24 * 1176 + 21 * 2 * (160 + 16 + 128) + 24 * (128 + 64) + 4 * 6 * 100),
    ],
)
def test_memory_by_hand(part, expected):
    assert cost.extra_bytes(part, SHAPE, ASKED, heads=2) == expected


def test_operations_by_hand():
    layers = (
        2 * 21 * 2 * (2 * 8 * (8 + 4) + 3 * 8 * 16)
    )  # 2 layers, 21 tokens: attention's four matrices, and the MLP's
    attention = 4 * 2 * 8 * (21 * 22 / 2)  # of every token to those before and itself
    vision = flops.vision_flops(SHAPE, (2, 3))
    one = layers + attention + vision
    assert cost.operations("attention", SHAPE, ASKED) == one + 2 * 8 * 100
    assert cost.operations("hidden-states", SHAPE, ASKED) == one + 2 * 8 * 100
    assert cost.operations("gate", SHAPE, ASKED) == one + 6 * 2 * 8 * 100
    assert cost.operations("gradient", SHAPE, ASKED) == 3 * (one + 6 * 2 * 8 * 100)


def test_the_expectation_reads_the_question_once_and_then_a_token_for_each_prefix():
    some, more = (cost.operations("no-reasoning", SHAPE, ASKED, prefixes) for prefixes in (0, 7))
    question = cost.Asked((2, 3), 10, 2)
    assert some == cost.operations("attention", SHAPE, question)
    each = 2 * 2 * (2 * 8 * 12 + 3 * 8 * 16) + 2 * 8 * 100 + 4 * 2 * 8 * (18 + 1)
    assert more - some == 7 * each


@pytest.mark.parametrize(("size", "known"), [("3b", QWEN_3B), ("7b", QWEN_7B)])
def test_weights_are_those_of_the_published_models(size, known):
    one = cost.SIZES[size]
    assert cost.weights(cost.shape_of(one), one.tied) == pytest.approx(known.parameters, rel=1e-3)


def test_a_forward_pass_takes_about_two_operations_a_weight_and_token():
    shape = cost.shape_of(cost.SIZES["7b"])
    asked = cost.Asked(grid=(1, 1), words=1000, answer=10)  # hardly an image
    language = shape.layers * (2 * 3584 * (3584 + 512) + 3 * 3584 * 18944)
    assert cost.operations("attention", shape, asked) == pytest.approx(2 * language * asked.tokens, rel=0.05)


def test_the_table_has_every_part_of_both_sizes():
    rows = cost.formula_rows()
    assert [row[:2] for row in rows] == [[size, part] for size in ("3b", "7b") for part in cost.PARTS]
    assert rows[0][3] == "7.0" and math.prod(cost.TYPICAL.grid) == 999


def test_a_part_is_measured_on_a_model_of_the_smallest_size(tmp_path: Path):
    cost.build(tmp_path / "model", "tiny")
    found = cost.measure(tmp_path / "model", "attention", cost.one_photograph(112, 84))
    assert sum(found["result"]) == pytest.approx(1, abs=1e-3) and found["asked"]["grid"] == (3, 4)
    assert found["peak_bytes"] > 1e8 and found["load"]["seconds"] > 0
    full = cost.with_formula(found, cost.SIZES["tiny"])
    assert full["operations"] > 1e6 and cost.line(full).startswith("attention: peak")
