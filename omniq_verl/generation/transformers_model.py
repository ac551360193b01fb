"""Run a Hugging Face model with ``transformers.generate``: slow, but with few parts between weights and answer."""

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omniq_verl.generation.chat_inputs import banned_tokens, decode_images, question_text, sees, tokenizer_of
from omniq_verl.generation.expectation import Vocabulary, Walk
from omniq_verl.generation.request import DONE, LENGTH, Answer, Request, Sampling, Tell, expected_answer
from omniq_verl.generation.transformers_direct import expect
from omniq_verl.generation.transformers_writing import Follower
from omniq_verl.generation.weights import check_loaded

if TYPE_CHECKING:
    from omniq_verl.generation.spec import EngineSpec


class TransformersModel:
    """A model on this process's GPU, or on the CPU if there is none.

    Greedy answers are generated in batches, sampled ones row by row, so that a row's seed gives the same answers in
    any batch.
    """

    reads_scores = True

    def __init__(self, spec: "EngineSpec", at_once: int = 8):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

        from omniq_verl.attention.transformers_attention import plain_attention

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        trust = spec.trust_remote_code
        self._processor = AutoProcessor.from_pretrained(spec.model, trust_remote_code=trust)
        self._tokenizer = tokenizer_of(self._processor)
        self._tokenizer.padding_side = "left"  # an answer continues at the end of its question
        kind = AutoModelForImageTextToText if sees(self._processor) else AutoModelForCausalLM
        model, info = kind.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]  a pair with info
            spec.model,
            dtype=spec.dtype,
            trust_remote_code=trust,
            use_safetensors=None if spec.allow_pickle else True,
            output_loading_info=True,
            **plain_attention(AutoConfig.from_pretrained(spec.model, trust_remote_code=trust)),
        )
        check_loaded(spec.model, info)
        self._model = model.to(self._device)
        self._longest, self.at_once, self._size = spec.length_of(self._model.config), at_once, spec.image_size
        self._banned = list(banned_tokens(self._processor).values())
        self._vocabulary = Vocabulary.of(self._tokenizer)

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        """``sampling.n`` answers for each request, in order.

        Raises:
            ValueError: a request is longer than ``max_model_len``, or an image does not decode; none is answered then.
        """
        if any(request.texts is not None for request in requests):
            return [self._expect(request, sampling) for request in requests]
        size = self.at_once if sampling.temperature == 0 else 1
        batches = [requests[first : first + size] for first in range(0, len(requests), size)]
        return [answers for batch in batches for answers in self._generate(batch, self._prepare(batch), sampling)]

    def write(self, request: Request, sampling: Sampling, tell: Tell, stopped: threading.Event) -> list[Answer]:
        """As ``answer`` to one request with ``sampling.n`` 1.

        Args:
            request: the question.
            sampling: how to write the answer.
            tell: gets the answer's parts with the surprise and the entropy of each token, in this thread.
            stopped: ends the answer early, after the next token.

        Raises:
            ValueError: as ``answer``.
        """
        inputs = self._prepare([request])
        follower = Follower(self._tokenizer, inputs["input_ids"].shape[1], tell, stopped)
        return self._generate([request], inputs, sampling, follower.settings(self._banned))[0]

    def _expect(self, request: Request, sampling: Sampling) -> list[Answer]:
        inputs = self._prepare([request])
        if request.texts is None:
            (answers,) = self._generate([request], inputs, sampling)
            return answers
        walk = Walk(self._vocabulary.spelling(request.texts))
        found = expect(self._model, inputs.to(self._device), walk, self.at_once)
        return [expected_answer(found, request.texts)]

    def _prepare(self, batch: Sequence[Request]) -> Any:
        texts = [
            question_text(self._processor, request.messages, len(request.images))
            + ("" if request.texts is None else request.texts.start)
            for request in batch
        ]
        images = [image for request in batch for image in decode_images(self._processor, request.images, self._size)]
        shown = {"images": images} if images else {}
        inputs = self._processor(text=texts, padding=True, return_tensors="pt", **shown)
        if (length := inputs["input_ids"].shape[1]) >= self._longest:
            raise ValueError(f"a question of {length} tokens leaves no room for an answer within {self._longest}")
        return inputs

    def _generate(
        self, batch: Sequence[Request], inputs: Any, sampling: Sampling, more: Mapping[str, Any] | None = None
    ) -> list[list[Answer]]:
        import torch

        start = inputs["input_ids"].shape[1]
        settings = {
            "do_sample": sampling.temperature > 0,
            "num_return_sequences": sampling.n,
            "max_new_tokens": min(sampling.max_tokens, self._longest - start),
            "suppress_tokens": self._banned or None,
            # Training does not use the folder's generation_config.json, so its values are overridden.
            "top_k": 0,
            "repetition_penalty": 1.0,
        }
        if sampling.temperature > 0:
            settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
        settings |= more or {}
        torch.manual_seed(batch[0].seed)
        with torch.inference_mode():
            found = self._model.generate(**inputs.to(self._device), **settings)[:, start:].tolist()
        answers = [self._answer(tokens) for tokens in found]
        return [answers[first : first + sampling.n] for first in range(0, len(answers), sampling.n)]

    def _answer(self, tokens: list[int]) -> Answer:
        ends = self._model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        length = next((ref for ref, token in enumerate(tokens) if token in ends), None)
        text = self._tokenizer.decode(tokens[:length], skip_special_tokens=True)
        return Answer(text, LENGTH, len(tokens)) if length is None else Answer(text, DONE, length + 1)
