"""Run a model over answers that already exist: one transformers forward pass over question and answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from omniq_verl.attention.transformers_attention import plain_attention
from omniq_verl.evaluation.heatmap import answer_ids, question_inputs, token_texts, with_answer
from omniq_verl.findings.tokens import answer_kinds, spans
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.weights import check_loaded
from omniq_verl.tasks import Scale


@dataclass(frozen=True)
class Read:
    """Question and answer as one sequence of T tokens."""

    inputs: Mapping[str, torch.Tensor]
    """Inputs of the model on the CPU: tokens ``[1, T]`` and pixels."""
    kinds: list[str]
    """Kind of each token, one of ``tokens.KINDS``; ``[T]``."""
    texts: list[str]
    """Text of each token of the answer."""

    @property
    def question(self) -> int:
        """Number of tokens in the question."""
        return len(self.kinds) - len(self.texts)

    def at(self, kind: str) -> torch.Tensor:
        """Return the positions of the tokens of one kind."""
        return torch.tensor([ref for ref, one in enumerate(self.kinds) if one == kind], dtype=torch.long)


class Reader:
    """A model and its processor.

    The model runs on a GPU if there is one, with the dtype of the engine that wrote the answers (``spec.dtype``).

    Args:
        spec: specification of the model.
        attention: name of an attention implementation that transformers knows; None: the model's default.

    Raises:
        ValueError: the model is not safe to open, or is incomplete.
    """

    def __init__(self, spec: EngineSpec, attention: str | None = None):
        spec.check()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        settings: dict[str, Any] = plain_attention(AutoConfig.from_pretrained(spec.model))
        if attention is not None:
            settings["attn_implementation"] = attention
        self.processor = AutoProcessor.from_pretrained(spec.model)
        model, info = AutoModelForImageTextToText.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]  a pair with info
            spec.model, dtype=spec.dtype, use_safetensors=True, output_loading_info=True, **settings
        )
        check_loaded(spec.model, info)
        self.model = model.to(self.device).eval()

    def read(
        self,
        messages: Sequence[Mapping[str, str]],
        images: Sequence[bytes],
        answer: str,
        answer_format: str = "number",
        scale: Scale | None = None,
    ) -> Read | None:
        """Return the sequence of a question and its answer; None if the answer has no reasoning or no parsable score.

        Raises:
            ForbiddenText: the question or the answer contains control tokens of the model.
            ValueError: the image cannot be decoded.
        """
        if (found := spans(answer, answer_format, scale)) is None:
            return None
        inputs = question_inputs(self.processor, messages, images[0])
        ids = answer_ids(self.processor, answer)
        texts = token_texts(self.processor.tokenizer, ids)
        image = self.model.config.image_token_id
        of_question = ["image" if one == image else "prompt" for one in inputs["input_ids"][0].tolist()]
        return Read(with_answer(inputs, ids), [*of_question, *answer_kinds(texts, *found)], texts)

    def on_device(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the inputs on the model's device."""
        return {name: value.to(self.device) for name, value in inputs.items()}
