"""The entropy gate's mask."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omniq_verl.losses import entropy_gate_mask
from omniq_verl.losses.entropy_gate import top_count, top_share_threshold
from omniq_verl.losses.settings import GateSettings

unhurried = settings(deadline=None)


def plain_mask(entropy: list[list[float]], mask: list[list[bool]], rho: float) -> list[list[bool]]:
    """Equation 1 in words: sort all response tokens, and let those pass that reach the last of the top share."""
    tokens = sorted((h for row, kept in zip(entropy, mask, strict=True) for h, m in zip(row, kept, strict=True) if m))
    if not tokens:
        return mask
    threshold = tokens[-top_count(len(tokens), rho)]
    return [
        [m and h >= threshold for h, m in zip(row, kept, strict=True)] for row, kept in zip(entropy, mask, strict=True)
    ]


ENTROPY = torch.tensor([[0.1, 0.9, 0.5, 0.3, 0.7], [0.2, 0.8, 0.4, 0.6, 9.0]])
RESPONSE = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])  # the 9.0 is padding


@pytest.mark.parametrize(
    ("rho", "scope", "expected", "reason"),
    [
        (0.2, "batch", [[0, 1, 0, 0, 0], [0, 1, 0, 0, 0]], "2 of 9 tokens (1.8 rounded up): 0.9 and 0.8"),
        (0.5, "batch", [[0, 1, 1, 0, 1], [0, 1, 0, 1, 0]], "5 of 9: 0.9 0.8 0.7 0.6 0.5"),
        (1.0, "batch", [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], "all, and still no padding"),
        (1e-6, "batch", [[0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], "one at least"),
        (0.2, "sequence", [[0, 1, 0, 0, 0], [0, 1, 0, 0, 0]], "1 of 5, and 1 of 4 (0.8 rounded up)"),
        (0.5, "sequence", [[0, 1, 1, 0, 1], [0, 1, 0, 1, 0]], "3 of 5, and 2 of 4"),
    ],
)
def test_worked_by_hand(rho, scope, expected, reason):
    found = entropy_gate_mask(ENTROPY, RESPONSE, rho, scope)
    assert found.dtype is torch.bool
    assert found.tolist() == torch.tensor(expected).bool().tolist(), reason


def test_one_threshold_for_the_batch_is_not_one_per_sequence():
    entropy = torch.tensor([[5.0, 6.0], [1.0, 2.0]])
    response = torch.ones(2, 2)
    assert entropy_gate_mask(entropy, response, 0.5).tolist() == [[True, True], [False, False]]
    assert entropy_gate_mask(entropy, response, 0.5, "sequence").tolist() == [[False, True], [False, True]]


def test_all_tokens_that_tie_with_the_threshold_pass():
    entropy = torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0]])
    assert entropy_gate_mask(entropy, torch.ones(1, 5), 0.2).tolist() == [[False, True, True, True, False]]


def test_the_default_share_is_a_fifth():
    entropy = torch.arange(100.0).reshape(4, 25)
    assert entropy_gate_mask(entropy, torch.ones(4, 25)).sum() == 20


@pytest.mark.parametrize("scope", ["batch", "sequence"])
def test_no_token_at_all_lets_none_pass(scope):
    assert not entropy_gate_mask(torch.ones(2, 3), torch.zeros(2, 3), 0.2, scope).any()
    assert entropy_gate_mask(torch.ones(0, 3), torch.zeros(0, 3), 0.2, scope).shape == (0, 3)


def test_a_sequence_without_tokens_lets_none_pass():
    found = entropy_gate_mask(torch.ones(2, 3), torch.tensor([[1, 1, 1], [0, 0, 0]]), 0.2, "sequence")
    assert found.tolist() == [[True] * 3, [False] * 3]


def test_the_gate_is_no_part_of_the_graph():
    entropy = torch.rand(2, 3, requires_grad=True)
    assert not entropy_gate_mask(entropy, torch.ones(2, 3)).requires_grad


@pytest.mark.parametrize("scope", ["batch", "sequence"])
def test_nan_is_rejected_in_a_response_and_ignored_in_padding(scope):
    entropy = torch.tensor([[1.0, math.nan]])
    with pytest.raises(ValueError, match="NaN"):
        entropy_gate_mask(entropy, torch.tensor([[1, 1]]), 0.2, scope)
    assert entropy_gate_mask(entropy, torch.tensor([[1, 0]]), 0.2, scope).tolist() == [[True, False]]


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        entropy_gate_mask(torch.ones(2, 3), torch.ones(3, 2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rho": 0.0}, "rho"),
        ({"rho": 1.1}, "rho"),
        ({"scope": "token"}, "scope"),
        ({"denominator": "none"}, "denominator"),
        ({"entropy": "new"}, "entropy"),
    ],
)
def test_settings_outside_of_their_range_are_rejected(wrong, message):
    with pytest.raises(ValueError, match=message):
        GateSettings(**wrong)


@pytest.mark.parametrize(
    ("tokens", "rho", "count"), [(30, 0.1, 3), (10, 0.3, 3), (5, 0.2, 1), (6, 0.2, 2), (1, 0.2, 1)]
)
def test_rounding_errors_do_not_add_a_token(tokens, rho, count):
    assert top_count(tokens, rho) == count


def test_more_tokens_than_torch_quantile_takes():
    values = torch.arange(2.0**24 + 16, dtype=torch.float64)
    assert top_share_threshold(values, 0.25) == values[-top_count(len(values), 0.25)]


BATCHES = st.integers(1, 5).flatmap(
    lambda width: st.lists(
        st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=width, max_size=width), min_size=1, max_size=6
    )
)


@unhurried
@given(BATCHES, st.sampled_from([0.1, 0.2, 0.5, 1.0]))
def test_the_mask_is_that_of_the_plain_rule(batch, rho):
    entropy = [[float(h) for h, _ in row] for row in batch]
    mask = [[m for _, m in row] for row in batch]
    assert entropy_gate_mask(torch.tensor(entropy), torch.tensor(mask), rho).tolist() == plain_mask(entropy, mask, rho)
    rows = [plain_mask([h], [m], rho)[0] for h, m in zip(entropy, mask, strict=True)]
    assert entropy_gate_mask(torch.tensor(entropy), torch.tensor(mask), rho, "sequence").tolist() == rows


@unhurried
@given(st.integers(1, 400), st.floats(0.01, 1.0), st.integers(0, 2**31))
def test_without_ties_the_share_is_rho_up_to_one_token(tokens, rho, seed):
    entropy = torch.tensor(np.random.default_rng(seed).permutation(tokens), dtype=torch.float32)[None]
    kept = int(entropy_gate_mask(entropy, torch.ones(1, tokens), rho).sum())
    assert rho * tokens - 1e-3 <= kept < rho * tokens + 1
