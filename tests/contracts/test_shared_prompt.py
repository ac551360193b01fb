"""Shared prompts: layout, attention and micro-batches. Real engines are compared in test_packed_engine.py."""

import inspect
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from omniq_verl.attention.segments import attend
from omniq_verl.attention.shared_prompt import attend_shared, shared_layout
from omniq_verl.trainer.group_packing import cut_groups, fewest_micro_batches, order_by_group
from omniq_verl.trainer.shared_prompt import check_same, share_computed, shared_prompt_mode

HEADS, KV_HEADS, WIDTH = 4, 2, 8

groups_of_answers = st.lists(
    st.tuples(st.integers(1, 50), st.lists(st.integers(1, 40), min_size=1, max_size=5)), min_size=1, max_size=4
)


def rows_of(found: list[tuple[int, list[int]]], seed: int) -> tuple[list[int], list[int], list[int]]:
    """Prompts, answers and groups of rows in a random order."""
    rows = [(prompt, answer, group) for group, (prompt, answers) in enumerate(found) for answer in answers]
    order = np.random.default_rng(seed).permutation(len(rows))
    prompts, answers, groups = zip(*(rows[i] for i in order), strict=True)
    return list(prompts), list(answers), list(groups)


def stream(prompts: list[int], answers: list[int], groups: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A plain stream of queries, keys and values, side by side, in which a group's prompts are alike."""
    generator = torch.Generator().manual_seed(len(prompts))
    of_group = {
        group: torch.randn(prompt, HEADS + 2 * KV_HEADS, WIDTH, generator=generator, dtype=torch.float64)
        for prompt, group in zip(prompts, groups, strict=True)
    }
    own = [torch.randn(n, HEADS + 2 * KV_HEADS, WIDTH, generator=generator, dtype=torch.float64) for n in answers]
    rows = [torch.cat([of_group[group], answer]) for group, answer in zip(groups, own, strict=True)]
    ends = torch.tensor([0, *np.cumsum([len(row) for row in rows])], dtype=torch.int32)
    return torch.cat(rows), ends


def split(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tensor[:, :HEADS], tensor[:, HEADS : HEADS + KV_HEADS], tensor[:, HEADS + KV_HEADS :]


@settings(max_examples=60, deadline=None)
@given(groups_of_answers, st.integers(0, 9))
def test_attention_and_gradients_are_those_of_each_row_alone(found, seed):
    prompts, answers, groups = rows_of(found, seed)
    plain, ends = stream(prompts, answers, groups)
    layout = shared_layout(prompts, answers, groups)
    assert len(layout.tokens) == sum(prompt + sum(own) for prompt, own in found)
    plain.requires_grad_()
    shared = plain.detach()[layout.tokens].requires_grad_()
    expected = attend(*split(plain), ends, causal=True)
    result = attend_shared(*split(shared), layout.query_boundaries, layout.key_boundaries, layout.key_tokens)
    torch.testing.assert_close(result, expected[layout.tokens])
    # A loss over the tokens that predict answers, as training has it.
    weights = torch.randn(len(layout.positions), HEADS, WIDTH, dtype=torch.float64)
    (expected[layout.positions] * weights).sum().backward()
    (result[layout.predicting] * weights).sum().backward()
    total = torch.zeros_like(shared)
    ref = {(group, i): int(index) for index, (group, i) in _prompt_places(layout, prompts, answers, groups)}
    for row, start in enumerate(ends[:-1].tolist()):
        for i in range(prompts[row]):
            total[ref[groups[row], i]] += plain.grad[start + i]
    where = {int(token): index for index, token in enumerate(layout.tokens)}
    for row, start in enumerate(ends[:-1].tolist()):
        for token in range(start + prompts[row], start + prompts[row] + answers[row]):
            total[where[token]] = plain.grad[token]
    torch.testing.assert_close(shared.grad, total)


def _prompt_places(layout, prompts, answers, groups):
    starts = np.cumsum([0, *np.add(prompts, answers)])
    where = {int(token): index for index, token in enumerate(layout.tokens)}
    for row in layout.first:
        for i in range(prompts[row]):
            yield where[int(starts[row]) + i], (groups[row], i)


def test_a_layout_by_hand():
    layout = shared_layout([2, 3, 2], [1, 2, 3], ["a", "b", "a"])
    # Plain: a0 a1 | x ; b0 b1 b2 | y0 y1 ; a0 a1 | z0 z1 z2. Shared: a0 a1 x z0 z1 z2 b0 b1 b2 y0 y1.
    assert layout.first == (0, 1)
    assert layout.tokens.tolist() == [0, 1, 2, 10, 11, 12, 3, 4, 5, 6, 7]
    assert layout.query_boundaries.tolist() == [0, 2, 3, 6, 9, 11]
    assert layout.key_boundaries.tolist() == [0, 2, 5, 10, 13, 18]
    assert layout.key_tokens.tolist() == [0, 1, 0, 1, 2, 0, 1, 3, 4, 5, 6, 7, 8, 6, 7, 8, 9, 10]
    assert layout.predicting.tolist() == [1, 8, 9, 1, 3, 4]
    assert layout.positions.tolist() == [1, 5, 6, 9, 10, 11]


@pytest.mark.parametrize(("prompts", "answers"), [([0], [1]), ([1], [0]), ([2, 3], [1, 1])])
def test_rows_that_cannot_share_are_an_error(prompts, answers):
    with pytest.raises(ValueError, match="token"):
        shared_layout(prompts, answers, ["a"] * len(prompts))


@pytest.fixture
def one_rank(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/ranks", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_shared_prompt_counts_once_in_what_is_computed(one_rank):
    layout = shared_layout([1100] * 16, [400] * 16, ["a"] * 16)
    counted = (len(layout.tokens), 16 * (1100 + 400))
    assert share_computed(counted, torch.device("cpu")) == 7_500 / 24_000
    assert share_computed((0, 0), torch.device("cpu")) == 1.0  # an engine of verl, which does not count


# Micro-batches


@settings(max_examples=100, deadline=None)
@given(groups_of_answers, st.integers(0, 9), st.integers(90, 200), st.integers(1, 8))
def test_pieces_hold_every_row_once_within_the_limit(found, seed, limit, at_least):
    prompts, answers, groups = rows_of(found, seed)
    pieces = cut_groups(prompts, answers, groups, limit, at_least)
    assert sorted(row for piece in pieces for row in piece.rows) == list(range(len(prompts)))
    for piece in pieces:
        assert len({groups[row] for row in piece.rows}) == 1
        assert piece.tokens == prompts[piece.rows[0]] + sum(answers[row] for row in piece.rows) <= limit
    assert len(pieces) >= min(at_least, len(prompts))
    assert fewest_micro_batches(pieces, limit) <= len(pieces)


def test_a_group_is_cut_only_where_it_has_to_be():
    assert [piece.rows for piece in cut_groups([10] * 4, [5] * 4, "aaaa", 100)] == [(0, 1, 2, 3)]
    assert [piece.rows for piece in cut_groups([10] * 4, [5] * 4, "aaaa", 20)] == [(0, 1), (2, 3)]
    assert [piece.rows for piece in cut_groups([10] * 4, [5] * 4, "aabb", 100, at_least=3)] == [(0,), (1,), (2, 3)]


def test_a_row_longer_than_a_micro_batch_is_an_error():
    with pytest.raises(ValueError, match=r"a row has 15 tokens, more than max_token_len_per_gpu=14"):
        cut_groups([10], [5], "a", 14)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 4), st.integers(0, 9))
def test_ranks_get_equal_shares_of_whole_groups(sizes, ranks, seed):
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    groups += [-1 - i for i in range(-len(groups) % ranks)]  # padding rows, each a group of its own
    order = np.random.default_rng(seed).permutation(len(groups))
    groups = [groups[i] for i in order]
    found = order_by_group(groups, [1.0] * len(groups), ranks)
    assert sorted(found) == list(range(len(groups)))
    share = len(groups) // ranks
    ends = range(0, len(groups) + 1, share)
    held = [{groups[row] for row in found[start:end]} for start, end in pairwise(ends)]
    torn = sum(sum(group in one for one in held) > 1 for group in set(groups))
    assert torn <= ranks * 2


def test_equal_groups_are_never_torn():
    groups = [group for group in range(8) for _ in range(16)]
    found = order_by_group(groups, [float(row % 7) for row in range(128)], 4)
    for start in range(0, 128, 32):
        assert len({groups[row] for row in found[start : start + 32]}) == 2


def test_the_order_of_a_batch_is_kept_within_each_share_whatever_the_lengths():
    # Sorted by length, every rank would train on its longest groups first.
    assert order_by_group([0, 0, 1, 1, 2, 2, 3, 3], [1, 1, 9, 9, 2, 2, 8, 8], 2) == list(range(8))
    assert order_by_group("abccbca", [1.0] * 7, 1) == [0, 6, 1, 4, 2, 3, 5]
    assert order_by_group("baaaac", [1.0] * 6, 2) == list(range(6))  # a is split, as no share has room for it


# The comparison of a run's first micro-batch


def log_probs(logits: np.ndarray, tokens: np.ndarray, noise: int, dtype: torch.dtype) -> torch.Tensor:
    """Log-probabilities of the tokens from logits with the rounding errors of a kernel of this dtype."""
    errors = 0.6 * torch.finfo(dtype).eps * np.random.default_rng(noise).standard_normal(logits.shape)
    found = torch.from_numpy(logits * (1 + errors)).to(dtype).float().log_softmax(-1)
    return found[np.arange(len(tokens)), tokens]


@pytest.fixture(scope="module")
def answer() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of a large model for 500 tokens, tokens sampled from them, and the logits after another prompt."""
    random = np.random.default_rng(0)
    own, other = 20 + 4 * random.standard_normal((2, 500, 2000))
    own[np.arange(500), random.integers(2000, size=500)] += 30 * random.random(500) ** 0.5
    shares = np.exp(own - own.max(axis=1, keepdims=True))
    tokens = np.array([random.choice(2000, p=each / each.sum()) for each in shares])
    return own, tokens, 0.8 * own + 0.2 * other


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_errors_of_a_large_model_stop_no_run(answer, dtype):
    own, tokens, _ = answer
    one, two = (log_probs(own, tokens, noise, dtype) for noise in (1, 2))
    if dtype == torch.bfloat16:
        assert (one - two).abs().max() > 0.5  # more than two steps of its largest logits
    check_same(one, two, dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_real_mistake_stops_the_run(answer, dtype):
    own, tokens, after_other_prompt = answer
    alone = log_probs(own, tokens, 1, dtype)
    half = len(tokens) // 2  # of two rows, the first is right
    for wrong in (after_other_prompt, np.roll(own, 1, axis=0)):
        shared = log_probs(np.concatenate([own[:half], wrong[half:]]), tokens, 2, dtype)
        with pytest.raises(RuntimeError, match=r"nats on average .* at most .*Fix: set trainer.v1.shared_prompt=off"):
            check_same(shared, alone, dtype)
    with pytest.raises(RuntimeError, match="differ"):
        check_same(alone * torch.nan, alone, dtype)


# The setting


def run(mode: object = "auto", **model: object) -> object:
    settings = {"override_config": {"attn_implementation": "omniq_varlen"}, **model}
    return OmegaConf.create({"trainer": {"v1": {"shared_prompt": mode}}, "actor_rollout_ref": {"model": settings}})


@pytest.mark.parametrize(
    ("config", "shared", "reason"),
    [
        (run(), True, ""),
        (run("off"), False, ""),
        (run(False), False, ""),
        (run(override_config={"attn_implementation": "sdpa"}), False, "is sdpa, not omniq_varlen"),
        (run(lora_rank=8), False, "LoRA"),
        (OmegaConf.create({}), False, ""),
    ],
)
def test_prompts_are_shared_where_that_is_exact(config, shared, reason, capsys):
    assert shared_prompt_mode(config) is shared
    assert reason in capsys.readouterr().out


def test_another_value_is_an_error():
    with pytest.raises(ValueError, match="always: choose one of auto, off"):
        shared_prompt_mode(run("always"))


def test_verl_still_cuts_micro_batches_where_ours_takes_its_place():
    from verl.workers.engine.fsdp import transformer_impl

    engine = transformer_impl.FSDPEngine.forward_backward_batch
    assert "prepare_micro_batches" in engine.__code__.co_names
    parameters = inspect.signature(transformer_impl.prepare_micro_batches).parameters
    assert {"data", "dp_group", "same_micro_num_in_dp"} <= parameters.keys()
