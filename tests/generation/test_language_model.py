"""A language model without eyes behind the engines: it writes prompts, and is shown no image."""

from pathlib import Path

import pytest

from omniq_verl.generation.chat_inputs import question_text, vision_tokens
from omniq_verl.generation.engines import open_engine
from omniq_verl.generation.request import Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.tokenizer import train_tokenizer

QUESTIONS = [[{"role": "user", "content": text}] for text in ("a cat", "a dog on a red sofa", "two cats")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(["a cat on a red sofa, and a dog"], 300)
    torch.manual_seed(0)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "eos_token_id": tokenizer.eos_token_id}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), bos_token_id=None, **size, **heads))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_it_answers_texts_alike_alone_and_in_a_batch(folder):
    engine = open_engine(EngineSpec(str(folder), "hf", dtype="float32", max_model_len=256))
    requests = [Request(str(number), messages) for number, messages in enumerate(QUESTIONS)]
    together = engine.answer(requests, Sampling(max_tokens=8))
    assert together == [engine.answer([request], Sampling(max_tokens=8))[0] for request in requests]
    assert [answer.tokens for (answer,) in together] == [8, 8, 8]


def test_it_is_shown_no_image(folder):
    engine = open_engine(EngineSpec(str(folder), "hf", dtype="float32", max_model_len=256))
    with pytest.raises(ValueError, match="a language model, which cannot see it"):
        engine.answer([Request("a", TECHNICAL.messages(None), (b"x",))], Sampling(max_tokens=8))


def test_its_question_is_that_of_its_own_template_and_no_vision_token_is_written(folder):
    from transformers import AutoProcessor

    tokenizer = AutoProcessor.from_pretrained(folder)
    text = question_text(tokenizer, QUESTIONS[0])
    assert text.endswith("<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n")
    assert set(vision_tokens(tokenizer)) == {"<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"}
