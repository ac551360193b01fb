"""Figures 8 to 10 of OmniQuality-R: the entropy of each word of each checkpoint's own answer.

The paper says that the trained model "generates more high-entropy tokens". This is about what each model writes, so
every checkpoint answers by itself; ``omniq heatmap`` compares two checkpoints on one answer. The entropy of a word is
the mean over its tokens. The paper does not say how it gets from tokens to words.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jinja2 import Environment, PackageLoader
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex

from omniq_verl.data.files import replace_text
from omniq_verl.data.images import data_url
from omniq_verl.evaluation.curves import short_names
from omniq_verl.evaluation.heatmap import (
    answer_logits,
    asked_messages,
    greedy_ids,
    image_file,
    open_model,
    question_inputs,
    token_numbers,
    token_texts,
)
from omniq_verl.evaluation.heatmap_page import visible
from omniq_verl.generation.model_folder import check_model_folder, expanded, weights_mark
from omniq_verl.generation.provenance import lines_of, provenance, this_start
from omniq_verl.generation.run_folder import checkpoint_of

HIGH = 0.8
"""Quantile of the first checkpoint's word entropies above which a word counts as high. Our choice, like the gate's rho
of 0.2."""


def words_of(tokens: Sequence[str], entropies: Sequence[float]) -> pd.DataFrame:
    """Group tokens into words: ``word``, ``entropy`` (the mean over its tokens, in nats) and ``tokens`` (their number).

    A word begins with a token that starts with white space, or after a token that ends with it. A tag such as
    ``</think>`` is a separate word.

    Args:
        tokens: texts of the tokens; joined, they are the answer.
        entropies: entropy of each token, in nats.
    """
    groups: list[list[int]] = []
    for number, text in enumerate(tokens):
        before = tokens[number - 1] if number else " "
        if not groups or text[:1].isspace() or text[:1] == "<" or before[-1:].isspace() or before[-1:] == ">":
            groups.append([])
        groups[-1].append(number)
    rows = [
        {
            "word": "".join(tokens[number] for number in group),
            "entropy": sum(entropies[number] for number in group) / len(group),
            "tokens": len(group),
        }
        for group in groups
    ]
    return pd.DataFrame(rows, columns=["word", "entropy", "tokens"])


@torch.inference_mode()
def read_own_answer(
    model: Any, processor: Any, messages: Sequence[Mapping[str, str]], image: bytes, max_tokens: int
) -> pd.DataFrame:
    """Return the words of the model's own greedy answer about an image, with their entropies."""
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in question_inputs(processor, messages, image).items()}
    ids = greedy_ids(model, processor, inputs, max_tokens)
    table = token_numbers(answer_logits(model, inputs, ids).cpu(), ids)
    return words_of(token_texts(processor.tokenizer, ids), table["entropy"].tolist())


def draw_words(
    models: Sequence[str | Path],
    images: Sequence[Path],
    out: Path,
    task: str = "technical",
    prompt: str | None = None,
    max_tokens: int = 1024,
    scale: str | None = None,
    device: str | None = None,
) -> Path:
    """Write ``words.html``, ``words.csv`` and ``words.json`` into ``out``; returns the page.

    Args:
        models: Hugging Face folders or folders of training runs; they may have different tokenizers.
        images: image files.
        out: output folder; created if missing.
        task: task whose question is asked, in its first wording.
        prompt: text the images were made from, for alignment.
        max_tokens: most tokens of an answer.
        scale: name of the scale the models were trained on; None: the task's own.
        device: torch device; None: a GPU if there is one, else the CPU. Both use single precision.

    Raises:
        ValueError: there is no model or image, a model is not safe to open, or an image is rejected.
    """
    if not models or not images:
        raise ValueError("at least one model and one image are needed. Fix: --model FOLDER --image FILE")
    folders = [Path(checkpoint_of(expanded(model))) for model in models]
    names = short_names(folders) if len(folders) > 1 else [str(folders[0])]
    messages, files = asked_messages(task, prompt, None, scale), [image_file(image) for image in images]
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    tables = {}
    for name, folder in zip(names, folders, strict=True):
        check_model_folder(os.path.abspath(folder))
        model, processor = open_model(folder, device)
        for image, data in zip(images, files, strict=True):
            tables[str(image), name] = read_own_answer(model, processor, messages, data, max_tokens)
        del model  # frees memory before the next model is loaded
    known = {name: weights_mark(folder) for name, folder in zip(names, folders, strict=True)}
    record = provenance([this_start()], model=known, images=list(map(str, images)), task=task, device=device)
    return _write(out, tables, names, dict(zip(map(str, images), files, strict=True)), record)


def summary(tables: Mapping[tuple[str, str], pd.DataFrame], names: Sequence[str]) -> list[dict[str, Any]]:
    """Summarise each checkpoint over all images: ``words``, ``mean_entropy`` and ``high_share``.

    ``high_share`` is the share of its words above ``high_from``, the entropy that a fifth of the first checkpoint's
    words exceed.
    """
    entropies = {
        name: pd.concat([table["entropy"] for (_, of), table in tables.items() if of == name]) for name in names
    }
    bound = float(entropies[names[0]].quantile(HIGH))
    return [
        {
            "name": name,
            "words": len(some),
            "mean_entropy": float(some.mean()),
            "high_from": bound,
            "high_share": float((some > bound).mean()),
        }
        for name, some in entropies.items()
    ]


def _write(
    out: Path,
    tables: Mapping[tuple[str, str], pd.DataFrame],
    names: Sequence[str],
    images: Mapping[str, bytes],
    record: Mapping[str, Any],
) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    about = summary(tables, names)
    replace_text(out / "words.csv", pd.concat(tables, names=["image", "checkpoint", "position"]).to_csv())
    replace_text(out / "words.json", json.dumps({"checkpoints": about, "provenance": record}, indent=2) + "\n")
    colours = ScalarMappable(Normalize(0, max(table["entropy"].max() for table in tables.values()) or 1.0), "YlOrRd")
    rows = [
        {
            "image": data_url(data),
            "name": image,
            "answers": [(name, _spans(tables[image, name], colours)) for name in names],
        }
        for image, data in images.items()
    ]
    template = Environment(loader=PackageLoader("omniq_verl.evaluation"), autoescape=True).get_template("words.html")
    most = colours.get_clim()[1]
    page = template.render(rows=rows, about=about, most=most, conditions=lines_of(record))
    return replace_text(out / "words.html", page)


def _spans(table: pd.DataFrame, colours: ScalarMappable) -> list[tuple[str, str, str, str]]:
    """Return the text, background colour, text colour and hover text of each word."""
    fills = colours.to_rgba(table["entropy"].to_numpy())
    light = fills[:, :3] @ (0.299, 0.587, 0.114)
    return [
        (visible(word.strip()), to_hex(fill), "#111111" if bright > 0.5 else "#ffffff", f"{entropy:.3f} nats")
        for word, entropy, fill, bright in zip(table["word"], table["entropy"], fills, light, strict=True)
    ]
