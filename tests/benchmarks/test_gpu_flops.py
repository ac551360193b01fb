"""The GPU benchmark's model and its FLOP formula, which is checked against PyTorch's counter."""

import io
import math

import pytest
from gpu_step_builders import GRID, benchmark_module, shape_of, small_tokenizer, tiny_configuration
from PIL import Image

gpu_flops = benchmark_module("gpu_flops")
real_size = benchmark_module("real_size")


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="module")
def tiny_config():
    return tiny_configuration()


def counted(run) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


def test_vision_flops_are_those_pytorch_counts(tiny_config, tmp_path):
    import torch
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

    shape = shape_of(tiny_config, tmp_path)
    tiny_config.vision_config._attn_implementation = "eager"
    vision = Qwen2_5_VisionTransformerPretrainedModel(tiny_config.vision_config).eval()
    pixels = torch.randn(4 * math.prod(GRID), shape.patch_values)
    grid = torch.tensor([[1, 2 * GRID[0], 2 * GRID[1]]])
    assert counted(lambda: vision(pixels, grid_thw=grid)) == gpu_flops.vision_flops(shape, GRID)


def test_language_model_flops_are_those_pytorch_counts(tiny_config, tmp_path):
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    shape, tokens = shape_of(tiny_config, tmp_path), 37
    tiny_config.text_config._attn_implementation = "eager"
    model = Qwen2_5_VLForConditionalGeneration(tiny_config).eval()
    found = counted(lambda: model(input_ids=torch.arange(tokens)[None], use_cache=False))
    expected = gpu_flops.layer_flops(shape, tokens) + gpu_flops.head_flops(shape, tokens)
    # The eager kernel computes the masked half as well; the causal count is t positions for token t.
    full = 4 * shape.layers * shape.query_width * tokens**2
    head_width = tiny_config.text_config.hidden_size // tiny_config.text_config.num_attention_heads
    rotary = 2 * 3 * tokens * head_width // 2  # an outer product of positions and frequencies for each of three axes
    assert found == expected + full + rotary
    causal = sum(4 * shape.layers * shape.query_width * position for position in range(1, tokens + 1))
    assert gpu_flops.attention_flops(shape, 0, tokens) == causal


def test_one_answer_costs_the_same_alone_and_as_a_group(tiny_config, tmp_path):
    shape, lengths = shape_of(tiny_config, tmp_path), gpu_flops.Lengths(70, 20, GRID)
    assert gpu_flops.group_flops(shape, lengths, 1) == pytest.approx(gpu_flops.forward_flops(shape, lengths))
    assert gpu_flops.group_flops(shape, lengths, 4) < 4 * gpu_flops.forward_flops(shape, lengths)


def test_seven_billion_parameters_by_hand(tokenizer, tmp_path):
    shape = shape_of(real_size.build_config(tokenizer, real_size.SIZES["7b"]), tmp_path)
    # 28 layers of 2 * 3584^2 + 2 * 3584 * 512 + 3 * 3584 * 18944 parameters, 1,500 tokens, two operations each
    assert gpu_flops.layer_flops(shape, 1500) == 2 * 1500 * 28 * (2 * 3584**2 + 2 * 3584 * 512 + 3 * 3584 * 18944)
    assert gpu_flops.head_flops(shape, 400) == 2 * 400 * 3584 * 152_064
    lengths = gpu_flops.Lengths(1100, 400, (25, 40))
    assert gpu_flops.forward_flops(shape, lengths) == pytest.approx(26.0e12, rel=0.01)


def test_phases_count_an_update_three_times_and_generation_once_per_prompt(tiny_config, tmp_path):
    shape, lengths = shape_of(tiny_config, tmp_path), gpu_flops.Lengths(70, 20, GRID)
    found = gpu_flops.phase_flops(shape, lengths, prompts=3, answers=4)
    assert found["update"] == 3 * found["reference"] == 3 * 12 * gpu_flops.forward_flops(shape, lengths)
    assert found["generation"] == 3 * gpu_flops.group_flops(shape, lengths, 4)


def test_a_folder_without_a_qwen_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json does not describe a Qwen2\.5-VL \(FileNotFoundError"):
        gpu_flops.ModelShape.read(tmp_path)
    (tmp_path / "config.json").write_text('{"text_config": {}}')
    with pytest.raises(ValueError, match="KeyError"):
        gpu_flops.ModelShape.read(tmp_path)


def test_the_vocabulary_is_filled_and_every_token_decodes(tokenizer):
    assert len(tokenizer) == 16_384
    texts = [tokenizer.decode([number]) for number in range(16_000)]
    assert sum(text.startswith("~") for text in texts) > 15_500 and len(set(texts[400:])) == 15_600
    ids = tokenizer("<|im_start|>user\nphotograph<|im_end|>")["input_ids"]
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>") > 16_300 and ids[-1] == tokenizer.eos_token_id
    with pytest.raises(ValueError, match="more than the model's 100"):
        real_size.fill_vocabulary(tokenizer, 100)


def test_photographs_are_all_different_and_the_same_again():
    files = real_size.photographs(24, 96, 64)
    assert len(set(files)) == 24 and files == real_size.photographs(24, 96, 64)
    assert {Image.open(io.BytesIO(file)).size for file in files} == {(96, 64)}
    assert not set(files) & set(real_size.photographs(24, 96, 64, seed=1))


def test_the_model_is_built_once_and_never_ends_an_answer(tmp_path):
    import torch
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    facts = real_size.prepare("tiny", tmp_path, 3, 112, 84)
    assert facts["grid"] == (3, 4) and facts["prompt_tokens"] >= facts["prompt_tokens_mean"] > 12
    built = (tmp_path / "model_tiny" / "model.safetensors").stat().st_mtime_ns
    assert real_size.prepare("tiny", tmp_path, 3, 112, 84) == facts
    assert (tmp_path / "model_tiny" / "model.safetensors").stat().st_mtime_ns == built
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(facts["model"])
    ends = AutoProcessor.from_pretrained(facts["model"]).tokenizer.eos_token_id
    with torch.no_grad():
        logits = model(input_ids=torch.arange(200)[None], use_cache=False).logits[0]
    assert not (logits.argmax(-1) == ends).any()
