"""Attention over packed sequences, against softmax(Q K^T) V written out in fp64."""

import json

import pytest
import torch
from doctor_builders import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

from omniq_verl.attention.segments import attend, segment_lengths
from omniq_verl.attention.transformers_attention import (
    NAME,
    activate,
    loadable_config,
    packed_attention,
    plain_attention,
)
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.transformers_model import TransformersModel


def boundaries_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)


def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: list[int], causal: bool, scale: float):
    """softmax(scale Q K^T + mask) V for each sequence and head, in fp64."""
    repeat, outputs, start = q.shape[1] // k.shape[1], [], 0
    for length in lengths:
        rows = slice(start, start + length)
        query = q[rows].double().transpose(0, 1)
        key, value = (t[rows].double().repeat_interleave(repeat, dim=1).transpose(0, 1) for t in (k, v))
        scores = scale * query @ key.transpose(1, 2)
        if causal:
            scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        outputs.append((torch.softmax(scores, dim=-1) @ value).transpose(0, 1))
        start += length
    return torch.cat(outputs) if outputs else q.double()


def random_inputs(lengths: list[int], heads: int, kv_heads: int, width: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(len(lengths) + sum(lengths))
    return [
        torch.randn(sum(lengths), n, width, generator=random, requires_grad=True) for n in (heads, kv_heads, kv_heads)
    ]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=12).filter(any),
    groups=st.sampled_from([(1, 1), (2, 2), (4, 2), (6, 1)]),
    causal=st.booleans(),
    scale=st.sampled_from([None, 0.3]),
)
def test_each_sequence_attends_to_itself_alone(lengths, groups, causal, scale):
    inputs = random_inputs(lengths, *groups, width=8)
    found = attend(*inputs, boundaries_of(lengths), causal, scale)
    expected = written_out(*inputs, lengths, causal, 8**-0.5 if scale is None else scale)
    weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    gradients = torch.autograd.grad((found.double() * weights).sum(), inputs)
    wanted = torch.autograd.grad((expected * weights).sum(), inputs)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
def test_what_stands_in_other_sequences_changes_nothing(causal):
    lengths = [5, 40, 3]
    q, k, v = random_inputs(lengths, 2, 2, 8)
    before = attend(q, k, v, boundaries_of(lengths), causal)
    with torch.no_grad():
        for tensor in (q, k, v):
            tensor[:5] = 1e4
            tensor[45:] = -1e4
    after = attend(q, k, v, boundaries_of(lengths), causal)
    assert torch.equal(before[5:45], after[5:45])


def test_boundaries_are_copied_to_the_host_once_and_again_when_they_have_changed(monkeypatch):
    copies = []
    real = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: copies.append(1) or real(self))
    boundaries = torch.tensor([0, 3, 7], dtype=torch.int32)
    assert [segment_lengths(boundaries) for _ in range(3)] == [(3, 4)] * 3
    assert len(copies) == 1
    boundaries[1] = 5
    assert segment_lengths(boundaries) == (5, 2)


@pytest.mark.parametrize("numbers", [[], [1, 4], [0, 5, 3]])
def test_boundaries_that_make_no_sense_are_rejected(numbers):
    with pytest.raises(ValueError, match="rise from 0"):
        segment_lengths(torch.tensor(numbers, dtype=torch.int32))


def test_boundaries_for_another_number_of_tokens_are_rejected():
    inputs = random_inputs([4], 1, 1, 8)
    with pytest.raises(ValueError, match="hold 3 tokens, the query has 4"):
        attend(*inputs, boundaries_of([3]), causal=True)


class Layer(torch.nn.Module):
    is_causal = True


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cu_seq_lens_q": None}, "use_remove_padding=true"),
        ({"attention_mask": torch.ones(1, 4)}, "use_remove_padding=true"),
        ({"dropout": 0.1}, "dropout"),
        ({"softcap": 30.0}, "softcap"),
        ({"sliding_window": 2}, "sliding window"),
    ],
)
def test_what_the_kernels_do_not_have_is_rejected(changed, message):
    tensors = [torch.randn(1, 1, 4, 8) for _ in range(3)]
    arguments = {"attention_mask": None, "cu_seq_lens_q": boundaries_of([4]), **changed}
    with pytest.raises(ValueError, match=f"{NAME}.*{message}"):
        packed_attention(Layer(), *tensors, **arguments)


def test_a_layer_is_causal_unless_the_call_says_otherwise():
    tensors = [torch.randn(1, 2, 4, 8) for _ in range(3)]
    calls = [{}, {"is_causal": True}, {"is_causal": False}]
    by_layer, causal, full = (
        packed_attention(Layer(), *tensors, None, cu_seq_lens_q=boundaries_of([4]), **call)[0] for call in calls
    )
    assert by_layer.shape == (1, 4, 2, 8)
    assert torch.equal(by_layer, causal) and not torch.allclose(causal, full)


def test_another_model_can_be_built_from_the_configuration_of_an_activated_one(tmp_path):
    # As verl does when it saves a checkpoint in Hugging Face's format.
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model(tmp_path / "tiny"))
    activate(model)
    with pytest.raises(ValueError, match="flash attention implementation"):  # why loadable_config is needed
        Qwen2_5_VLForConditionalGeneration._from_config(model.config)
    with loadable_config(model):
        assert Qwen2_5_VLForConditionalGeneration._from_config(model.config).config._attn_implementation == NAME
    names = {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")}
    assert len(names) == 1 and "flash" in names.pop()


def test_a_saved_model_names_no_attention_that_transformers_lacks(tmp_path):
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model(tmp_path / "tiny"))
    model.config.attn_implementation = NAME  # as verl writes model.override_config into it
    activate(model)
    with loadable_config(model):
        model.config.save_pretrained(tmp_path / "saved")
    assert NAME not in (tmp_path / "saved" / "config.json").read_text()
    assert model.config.attn_implementation == NAME


def test_a_model_that_was_trained_with_our_attention_is_opened_for_use(tmp_path):
    folder = tiny_model(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attn_implementation": NAME}))
    spec = EngineSpec(str(folder), "hf")
    assert TransformersModel(spec)._model.config._attn_implementation == "sdpa"
    assert plain_attention(AutoConfig.from_pretrained(tiny_model(tmp_path / "other"))) == {}
