"""Heatmap of a model's uncertainty: the entropy of every token of an answer, under one or two checkpoints.

Source: figures 8 to 10 of OmniQuality-R. Both checkpoints process the same answer, in float32 and at temperature 1.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from xxhash import xxh3_128

from omniq_verl.attention.transformers_attention import plain_attention
from omniq_verl.data.files import replace_text
from omniq_verl.data.images import BadImage, load_image
from omniq_verl.data.text_files import file_text
from omniq_verl.evaluation.curves import short_names
from omniq_verl.evaluation.heatmap_page import About, write_heatmap
from omniq_verl.generation.chat_inputs import banned_tokens, decode_images, question_text
from omniq_verl.generation.model_folder import check_model_folder, expanded, weights_mark
from omniq_verl.generation.provenance import provenance, this_start
from omniq_verl.generation.run_folder import checkpoint_of
from omniq_verl.generation.weights import check_loaded
from omniq_verl.losses import entropy_gate_mask
from omniq_verl.losses.settings import GateSettings
from omniq_verl.tasks import IMAGE_PLACEHOLDER, check_text, image_task, scale_of, task_on

_ROWS = 64  # rows of logits processed at once: 39 MB in float32 for a vocabulary of 151,936 tokens


# Numbers


def token_entropies(logits: torch.Tensor) -> torch.Tensor:
    """Return the entropy of each row's distribution in nats, float32 ``[T]``.

    Args:
        logits: next-token logits ``[T, V]``, any float type; -inf excludes a token.

    Raises:
        ValueError: a row contains NaN or +inf, or has no finite logit.
    """
    # entr(p) is -p ln p, and 0 at 0.
    entropy = torch.cat([torch.special.entr(part.float().softmax(-1)).sum(-1) for part in logits.split(_ROWS)])
    if entropy.isnan().any():
        raise ValueError("a row of logits is not a distribution: it contains NaN or +inf, or has no finite value")
    return entropy


def token_numbers(logits: torch.Tensor, ids: Sequence[int], rho: float = 0.2) -> pd.DataFrame:
    """Return the numbers of an answer's tokens, one row per token.

    Args:
        logits: ``[T, V]``; row t is the distribution that token t was, or would have been, drawn from.
        ids: token ids ``[T]``.
        rho: share of tokens that pass the gate (``omniq_verl.losses.entropy_gate_mask``).

    Returns:
        ``entropy`` in nats, ``probability`` and ``rank`` of the token (1: most likely), and ``passed``: whether the
        token would pass the gate if this answer were its whole batch.
    """
    entropy = token_entropies(logits)
    probability, rank = [], []
    for part, chosen in zip(logits.split(_ROWS), torch.tensor(ids).split(_ROWS), strict=True):
        part = part.float()
        at = part.gather(1, chosen[:, None])
        probability.append((at - part.logsumexp(-1, keepdim=True)).exp()[:, 0])
        rank.append((part > at).sum(-1) + 1)
    passed = entropy_gate_mask(entropy[None], torch.ones(1, len(entropy)), rho)[0]
    columns = {"entropy": entropy, "probability": torch.cat(probability), "rank": torch.cat(rank), "passed": passed}
    return pd.DataFrame({name: column.numpy() for name, column in columns.items()})


# Tokens


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Return the part of the answer that each token adds; joined, the parts are the answer.

    A token may end within a character (byte-level BPE). It then adds nothing, and the token that completes the
    character adds all of it.
    """
    texts, known = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if end < len(ids):
            text = text.rstrip("\ufffd")  # replacement for an incomplete character
        texts.append(text[len(known) :])
        known += texts[-1]
    return texts


# Model


def _open_processors(models: Sequence[Path]) -> list[Any]:
    for model in models:
        check_model_folder(os.path.abspath(model))
    processors = [AutoProcessor.from_pretrained(model) for model in models]
    vocabularies = [processor.tokenizer.get_vocab() for processor in processors]
    if vocabularies[0] != vocabularies[-1]:
        raise ValueError(
            f"{models[0]} and {models[-1]} have different tokenizers, so an answer has different tokens in each. Fix:"
            " give two checkpoints of one model, or draw them separately"
        )
    return processors


def _open_model(folder: Path) -> Any:
    settings = plain_attention(AutoConfig.from_pretrained(folder))
    model, info = AutoModelForImageTextToText.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]  a pair with info
        folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **settings
    )
    check_loaded(folder, info)
    return model


def open_model(folder: Path, device: str = "cpu") -> tuple[Any, Any]:
    """Open a checkpoint in single precision on a device, and its processor. The folder must already be checked.

    Raises:
        ValueError: the weights do not fit the model, or torch has no such device.
    """
    try:
        return _open_model(folder).to(device), AutoProcessor.from_pretrained(folder)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device}: {error}. Fix: --device cpu") from error


def question_inputs(processor: Any, messages: Sequence[Mapping[str, str]], image: bytes) -> dict[str, torch.Tensor]:
    """Return the model's input before its answer: text and image, prepared like verl's rollouts."""
    text = question_text(processor, messages, 1)
    return dict(processor(text=[text], images=decode_images(processor, [image]), return_tensors="pt"))


def answer_ids(processor: Any, answer: str) -> list[int]:
    """Return the tokens of an answer, followed by the end-of-turn token as in training.

    Raises:
        ForbiddenText: the answer contains a control token, such as an image placeholder.
    """
    tokenizer = processor.tokenizer
    answer = answer.removesuffix(tokenizer.eos_token)
    check_text(answer, "the answer", processor)
    return [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]


@torch.inference_mode()
def greedy_ids(model: Any, processor: Any, inputs: Mapping[str, torch.Tensor], max_tokens: int) -> list[int]:
    """Return the tokens of the model's greedy answer. The last one ends the turn unless ``max_tokens`` is reached."""
    found = model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=max_tokens,
        repetition_penalty=1.0,  # Qwen2.5-VL's folder sets 1.05, which neither training nor our vLLM engine uses
        suppress_tokens=list(banned_tokens(processor).values()) or None,
    )
    return found[0, inputs["input_ids"].shape[1] :].tolist()


def with_answer(inputs: Mapping[str, torch.Tensor], ids: Sequence[int]) -> dict[str, torch.Tensor]:
    """Append the tokens of an answer to the inputs of a question ``[1, Q]``, on the CPU."""
    given = dict(inputs)
    for name, value in inputs.items():
        if value.shape == inputs["input_ids"].shape:  # an input with one number per token, whatever its name
            more = {"input_ids": value.new_tensor([ids]), "attention_mask": value.new_ones(1, len(ids))}
            given[name] = torch.cat([value, more.get(name, value.new_zeros(1, len(ids)))], dim=1)
    return given


@torch.inference_mode()
def answer_logits(model: Any, inputs: Mapping[str, torch.Tensor], ids: Sequence[int]) -> torch.Tensor:
    """Return logits ``[T, V]``. Row t is the distribution of token t, given the question and the tokens before it."""
    return model(**with_answer(inputs, ids), logits_to_keep=len(ids) + 1).logits[0, -len(ids) - 1 : -1]


# Heatmap


def draw_heatmap(
    models: Sequence[str | Path],
    image: Path,
    out: Path,
    task: str = "technical",
    prompt: str | None = None,
    answer: str | None = None,
    rho: float = 0.2,
    max_tokens: int = 1024,
    question: str | None = None,
    scale: str | None = None,
) -> Path:
    """Compute the entropies of an answer's tokens under one or two checkpoints; returns the page.

    This writes ``heatmap.html``, ``heatmap.png``, ``heatmap.csv`` with the numbers of every token under every
    checkpoint, and ``heatmap.json`` with the question, the answer and a summary. It runs on the CPU in float32, which
    takes 4 bytes of memory per parameter.

    Args:
        models: one Hugging Face folder, or two with the same tokenizer.
        image: file in any format that ``omniq_verl.data.images`` accepts.
        out: folder for the results.
        task: task whose question is asked, in its first wording.
        prompt: text the image was made from, for alignment.
        answer: text, or a file that contains it; None: the first checkpoint's own greedy answer.
        rho: share of the answer's tokens to underline, those with the highest entropy.
        max_tokens: most tokens of the greedy answer.
        question: question to ask instead of the task's.
        scale: scale the models were trained on, by its name in ``omniq_verl.tasks.SCALES``; None: the task's own.

    Raises:
        ValueError: the tokenizers differ, the image is rejected, or an argument is invalid.
    """
    GateSettings(rho)  # validates rho
    if not 1 <= len(models) <= 2:
        raise ValueError(f"give one model, or two to compare; got {len(models)}")
    models = [Path(checkpoint_of(expanded(model))) for model in models]
    names = short_names(models) if len(models) > 1 else [str(models[0])]
    processors = _open_processors(models)
    messages, data = asked_messages(task, prompt, question, scale), image_file(image)
    ids = None if answer is None else answer_ids(processors[0], _read(answer))
    tables = []
    for folder, processor in zip(models, processors, strict=True):
        model = _open_model(folder)
        inputs = question_inputs(processor, messages, data)
        ids = ids or greedy_ids(model, processor, inputs, max_tokens)
        table = token_numbers(answer_logits(model, inputs, ids), ids, rho)
        del model  # frees memory before the next model is loaded
        tables.append(table.assign(id=ids, token=token_texts(processor.tokenizer, ids)))
    about = {
        "image": str(image),
        "question": messages[-1]["content"].replace(IMAGE_PLACEHOLDER, ""),
        "answer": "".join(tables[0]["token"]),
        "answer_is": f"greedy, by {names[0]}" if answer is None else "given",
        "rho": rho,
        "checkpoints": [_summary(*one) for one in zip(names, models, tables, strict=True)],
    }
    models_known = {name: weights_mark(Path(folder)) for name, folder in zip(names, models, strict=True)}
    image_known = {"path": str(image), "xxh128": xxh3_128(data).hexdigest()}
    asked = {"model": models_known, "sampling": {"temperature": 0, "max_tokens": max_tokens}}
    about["provenance"] = provenance([this_start()], **asked, image=image_known)
    return _write(out, about, tables, data)


def image_file(path: Path) -> bytes:
    """Return the bytes of an image.

    Raises:
        ValueError: the image is rejected; the message names the file.
    """
    try:
        return load_image(path)
    except BadImage as error:
        raise ValueError(f"{path}: {error}. Fix: give an image that can be opened") from None


def asked_messages(
    task: str, prompt: str | None, question: str | None, scale: str | None = None
) -> list[dict[str, str]]:
    if question is not None:
        return [
            {"role": "user", "content": question if IMAGE_PLACEHOLDER in question else IMAGE_PLACEHOLDER + question}
        ]
    asked = image_task(task, "--task")
    if prompt is not None and not asked.needs_text:
        raise ValueError(
            f"the task {task} does not use a text. Fix: remove --prompt, or ask your own question with --question"
        )
    if scale is not None and asked.scale is None:
        raise ValueError(f"the task {task} has no score. Fix: remove --scale")
    return task_on(task, scale_of(scale)).messages(None, prompt) if scale else asked.messages(None, prompt)


def _read(answer: str) -> str:
    # Path.is_file would raise an error for a text that is too long for a file name.
    return file_text(Path(answer)).removesuffix("\n") if os.path.isfile(answer) else answer


def _summary(name: str, folder: Path, table: pd.DataFrame) -> dict[str, Any]:
    passed = table["entropy"][table["passed"]]
    return {
        "name": name,
        "folder": str(folder),
        "tokens": len(table),
        "mean_entropy": float(table["entropy"].mean()),
        "tokens_passed": len(passed),
        "gate_threshold": float(passed.min()),
    }


def _write(out: Path, about: About, tables: Sequence[pd.DataFrame], image: bytes) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    numbers = pd.concat({one["name"]: table for one, table in zip(about["checkpoints"], tables, strict=True)})
    replace_text(out / "heatmap.csv", numbers.rename_axis(["checkpoint", "position"]).to_csv())
    replace_text(out / "heatmap.json", json.dumps(about, indent=2) + "\n")
    return write_heatmap(out, about, tables, image)
