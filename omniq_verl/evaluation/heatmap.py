"""Where a model hesitates: the entropy of every token of an answer, under one checkpoint or two.

Source: figures 8 to 10 of OmniQuality-R. Both read the same answer, in single precision and at temperature 1.
"""

import io
import json
import os
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, PackageLoader
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_hex
from PIL import Image
from rich.cells import cell_len
from transformers import AutoModelForImageTextToText, AutoProcessor

from omniq_verl.data.images import data_url, load_image
from omniq_verl.evaluation.curves import short_names
from omniq_verl.generation.model_folder import check_model_folder
from omniq_verl.generation.question import decode_images, question_text, vision_tokens
from omniq_verl.losses import entropy_gate_mask
from omniq_verl.losses.settings import GateSettings
from omniq_verl.tasks import IMAGE_PLACEHOLDER, IMAGE_TASKS

matplotlib.use("Agg")
from matplotlib import pyplot as plt

About = Mapping[str, Any]
"""What ``heatmap.json`` says, or its part about one checkpoint."""
NEWLINE, TAB, PART = "\u21b5", "\u21e5", "\u25cc"
"""Stand for what cannot be seen: a line's end, a tabulator, a token that is no whole character yet."""
_ROWS = 64  # of logits worked on at once: 39 MB of single precision where the vocabulary has 151,936 tokens
_COLUMNS, _WIDTH, _LINE, _MARGIN = 84, 9.6, 0.29, 0.3
"""Of the picture: characters in a line; inches of the whole, of a line's height, and left and right of it."""
_HIGHEST = 60_000  # pixels of the picture; matplotlib draws less than 65,536


@dataclass(frozen=True)
class Strip:
    """The ``T`` tokens of an answer, each with a value in nats that becomes its colour."""

    title: str
    note: str
    values: np.ndarray
    underlined: np.ndarray
    hover: list[str]
    colours: plt.cm.ScalarMappable
    unit: str

    def paint(self) -> tuple[list[str], list[str]]:
        """Background and ink of every token."""
        fills = self.colours.to_rgba(self.values)
        light = fills[:, :3] @ (0.299, 0.587, 0.114)
        return [to_hex(fill) for fill in fills], ["#111111" if value > 0.5 else "#ffffff" for value in light]

    def bar(self) -> tuple[list[str], list[str]]:
        """Colours and labels of the colour bar, both evenly spaced."""
        low, high = self.colours.get_clim()
        steps = self.colours.to_rgba(np.linspace(low, high, 11))
        return [to_hex(step) for step in steps], [f"{value:.2f}" for value in np.linspace(low, high, 5)]


# Numbers


def token_entropies(logits: torch.Tensor) -> torch.Tensor:
    """Entropy of the distribution each row stands for, in nats, float32 ``[T]``.

    Args:
        logits: of the next token ``[T, V]``, any float type; -inf rules a token out.

    Raises:
        ValueError: a row has NaN, +inf, or no finite logit at all.
    """
    # entr(p) is -p ln p, and 0 at 0.
    entropy = torch.cat([torch.special.entr(part.float().softmax(-1)).sum(-1) for part in logits.split(_ROWS)])
    if entropy.isnan().any():
        raise ValueError("a row of logits is no distribution: it has NaN, +inf, or no finite value")
    return entropy


def token_numbers(logits: torch.Tensor, ids: Sequence[int], rho: float = 0.2) -> pd.DataFrame:
    """One line for each token of an answer.

    Args:
        logits: ``[T, V]``; row t is the distribution that token t was, or would have been, drawn from.
        ids: of the tokens ``[T]``.
        rho: share of the tokens the gate lets pass (``omniq_verl.losses.entropy_gate_mask``).

    Returns:
        ``entropy`` in nats, ``probability`` and ``rank`` of the token (1: the likeliest), and ``passed``: would the
        gate take the policy gradient on it, were this answer its batch?
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
    """The part of the answer each token adds; joined they are the answer.

    Tokens may end within a character (byte-level BPE): such a one adds nothing, and the token that completes the
    character adds it.
    """
    texts, known = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if end < len(ids):
            text = text.rstrip("\ufffd")  # stands for bytes that are no character yet
        texts.append(text[len(known) :])
        known += texts[-1]
    return texts


def visible(text: str) -> str:
    """A token's text with a sign or number for each character that would not be seen, or would move others."""
    text = text.replace("\n", NEWLINE).replace("\t", TAB)
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in text) or PART


# Model


def _open_processors(models: Sequence[Path]) -> list[Any]:
    for model in models:
        check_model_folder(os.path.abspath(model))
    processors = [AutoProcessor.from_pretrained(model) for model in models]
    vocabularies = [processor.tokenizer.get_vocab() for processor in processors]
    if vocabularies[0] != vocabularies[-1]:
        raise ValueError(
            f"{models[0]} and {models[-1]} have different tokenizers, so that no answer is the same tokens to both;"
            " name two checkpoints of one model, or draw each by itself"
        )
    return processors


def question_inputs(processor: Any, messages: Sequence[Mapping[str, str]], image: bytes) -> dict[str, torch.Tensor]:
    """What the model is given before its answer: the text and the image as verl's rollouts prepare them."""
    text = question_text(processor, messages)
    return dict(processor(text=[text], images=decode_images(processor, [image]), return_tensors="pt"))


def answer_ids(processor: Any, answer: str) -> list[int]:
    """The tokens of an answer, with the end of its turn as in training.

    Raises:
        ValueError: it has a placeholder of an image.
    """
    tokenizer = processor.tokenizer
    ids = tokenizer.encode(answer.removesuffix(tokenizer.eos_token), add_special_tokens=False)
    if found := [token for token, number in vision_tokens(processor).items() if number in ids]:
        raise ValueError(f"the answer has {found[0]}, behind which the model would look for an image; take it out")
    return [*ids, tokenizer.eos_token_id]


@torch.inference_mode()
def greedy_ids(model: Any, processor: Any, inputs: Mapping[str, torch.Tensor], max_tokens: int) -> list[int]:
    """The tokens of the model's likeliest answer; the end of the turn is the last unless ``max_tokens`` came first."""
    found = model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=max_tokens,
        repetition_penalty=1.0,  # Qwen2.5-VL's folder says 1.05, which neither training nor vLLM here heeds
        suppress_tokens=list(vision_tokens(processor).values()) or None,
    )
    return found[0, inputs["input_ids"].shape[1] :].tolist()


@torch.inference_mode()
def answer_logits(model: Any, inputs: Mapping[str, torch.Tensor], ids: Sequence[int]) -> torch.Tensor:
    """Logits ``[T, V]``; row t is the distribution of token t, given the question and the tokens before it."""
    given = dict(inputs)
    for name, value in inputs.items():
        if value.shape == inputs["input_ids"].shape:  # one number for each token, whatever the processor calls it
            more = {"input_ids": torch.tensor([ids]), "attention_mask": value.new_ones(1, len(ids))}
            given[name] = torch.cat([value, more.get(name, value.new_zeros(1, len(ids)))], dim=1)
    return model(**given, logits_to_keep=len(ids) + 1).logits[0, -len(ids) - 1 : -1]


# Heatmap


def draw_heatmap(
    models: Sequence[Path],
    image: Path,
    out: Path,
    task: str = "technical",
    prompt: str | None = None,
    answer: str | None = None,
    rho: float = 0.2,
    max_tokens: int = 1024,
) -> Path:
    """Read an answer with one checkpoint or two, and write what its tokens' entropies are; returns the page.

    ``heatmap.html`` and ``heatmap.png`` to look at, ``heatmap.csv`` with the numbers of every token under every
    checkpoint, ``heatmap.json`` with the question, the answer and a summary. On the CPU, in single precision: 4 bytes
    of memory for each parameter.

    Args:
        models: Hugging Face folders, one, or two with the same tokenizer.
        image: file of any kind that ``omniq_verl.data.images`` takes.
        out: folder of the results.
        task: its question is asked, in its first wording.
        prompt: a question to ask instead.
        answer: text, or a file that has it; None: the first checkpoint's own greedy answer.
        rho: share of the answer's tokens underlined, those of highest entropy.
        max_tokens: longest greedy answer.

    Raises:
        ValueError: the tokenizers differ, the image is refused, or an argument cannot be used as it is.
    """
    GateSettings(rho)  # checks it
    if not 1 <= len(models) <= 2:
        raise ValueError(f"name one model, or two to compare, not {len(models)}")
    names = short_names(models) if len(models) > 1 else [str(models[0])]
    processors = _open_processors(models)
    messages, data = _messages(task, prompt), load_image(image)
    ids = None if answer is None else answer_ids(processors[0], _read(answer))
    tables = []
    for folder, processor in zip(models, processors, strict=True):
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        inputs = question_inputs(processor, messages, data)
        ids = ids or greedy_ids(model, processor, inputs, max_tokens)
        table = token_numbers(answer_logits(model, inputs, ids), ids, rho)
        del model  # before the next one is loaded
        tables.append(table.assign(id=ids, token=token_texts(processor.tokenizer, ids)))
    about = {
        "image": str(image),
        "question": messages[0]["content"].replace(IMAGE_PLACEHOLDER, ""),
        "answer": "".join(tables[0]["token"]),
        "answer_is": f"greedy, by {names[0]}" if answer is None else "given",
        "rho": rho,
        "checkpoints": [_summary(*one) for one in zip(names, models, tables, strict=True)],
    }
    return _write(out, about, tables, data)


def _messages(task: str, prompt: str | None) -> list[dict[str, str]]:
    if prompt is not None:
        return [{"role": "user", "content": prompt if IMAGE_PLACEHOLDER in prompt else IMAGE_PLACEHOLDER + prompt}]
    if task not in IMAGE_TASKS:
        raise ValueError(f"there is no task {task!r}; known: {', '.join(IMAGE_TASKS)}; or ask by a prompt of your own")
    return IMAGE_TASKS[task].messages(None)


def _read(answer: str) -> str:
    # Not Path.is_file, which raises on a text too long for a file's name.
    return Path(answer).read_text("utf-8").removesuffix("\n") if os.path.isfile(answer) else answer


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
    numbers.rename_axis(["checkpoint", "position"]).to_csv(out / "heatmap.csv", errors="replace")
    (out / "heatmap.json").write_text(json.dumps(about, indent=2) + "\n")
    picture = Image.open(io.BytesIO(image)).convert("RGB")
    picture.thumbnail((480, 480))
    shown, strips = [visible(text) for text in tables[0]["token"]], strips_of(about["checkpoints"], tables)
    _draw(about, shown, strips, picture, out / "heatmap.png")
    (out / "heatmap.html").write_text(_page(about, shown, strips, picture), encoding="utf-8", errors="replace")
    return out / "heatmap.html"


def strips_of(checkpoints: Sequence[About], tables: Sequence[pd.DataFrame]) -> list[Strip]:
    """One strip for each checkpoint, all on one scale, and of two the difference."""
    most = max(table["entropy"].max() for table in tables) or 1.0
    colours = plt.cm.ScalarMappable(plt.Normalize(0, most), "YlGnBu")
    strips = []
    for one, table in zip(checkpoints, tables, strict=True):
        gate = f"{one['tokens_passed']} of {one['tokens']} tokens, from {one['gate_threshold']:.3f} nats on"
        note = f"mean {one['mean_entropy']:.3f} nats; underlined: the gate's {gate}"
        hover = [_hover(one["name"], line) for line in table.itertuples()]
        values, passed = table["entropy"].to_numpy(), table["passed"].to_numpy()
        strips.append(Strip(f"{one['name']}: entropy", note, values, passed, hover, colours, "entropy (nats)"))
    return [*strips, _difference(*strips)] if len(strips) == 2 else strips


def _difference(first: Strip, second: Strip) -> Strip:
    change = second.values - first.values
    most = np.abs(change).max() or 1.0
    legend = "red: the second hesitates more, blue: less; underlined: passes one gate only"
    hovers = zip(first.hover, second.hover, change, strict=True)
    return Strip(
        title="Difference: second minus first",
        note=f"mean {change.mean():+.3f} nats; {legend}",
        values=change,
        underlined=first.underlined != second.underlined,
        hover=[f"{one}\n{other}\ndifference {value:+.3f} nats" for one, other, value in hovers],
        colours=plt.cm.ScalarMappable(plt.Normalize(-most, most), "RdBu_r"),
        unit="difference of entropies (nats)",
    )


def _hover(name: str, line: Any) -> str:
    token = f'"{visible(line.token)}"' if line.token else "part of a character"
    return f"{token}, {name}\nentropy {line.entropy:.3f} nats\nprobability {line.probability:.4f}\nrank {line.rank}"


# Page and picture


def _page(about: About, shown: Sequence[str], strips: Sequence[Strip], picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    template = Environment(loader=PackageLoader("omniq_verl.evaluation"), autoescape=True).get_template("heatmap.html")
    return template.render(about=about, image=data_url(buffer.getvalue()), shown=shown, strips=strips, newline=NEWLINE)


def place_cells(shown: Sequence[str], columns: int = _COLUMNS) -> list[tuple[int, int, int]]:
    """Line, column and width of each token in lines of so many characters; one with a line's end is its line's last."""
    places, line, column = [], 0, 0
    for text in shown:
        width = min(max(cell_len(text), 1), columns)
        if column + width > columns:
            line, column = line + 1, 0
        places.append((line, column, width))
        column += width
        if NEWLINE in text:
            line, column = line + 1, 0
    return places


def _draw(about: About, shown: Sequence[str], strips: Sequence[Strip], picture: Image.Image, out: Path) -> None:
    places = place_cells(shown)
    head, tall = 1.9, _LINE * (places[-1][0] + 1)
    figure = plt.figure(figsize=(_WIDTH, head + len(strips) * (tall + 1.1)))
    _axes(figure, _MARGIN, 0.2, 1.5, 1.5).imshow(picture, interpolation="nearest")
    question = textwrap.wrap(visible(about["question"]), 95, max_lines=6)
    words = "\n".join([*question, "", f"Image: {Path(about['image']).name}", f"Answer: {about['answer_is']}"])
    _axes(figure, 2.1, 0.2, 7.2, 1.5).text(0, 1, words, va="top", fontsize=9, parse_math=False)
    for number, strip in enumerate(strips):
        top = head + number * (tall + 1.1)
        axis = _axes(figure, _MARGIN, top + 0.45, _WIDTH - 2 * _MARGIN, tall)
        axis.set(xlim=(0, _COLUMNS), ylim=(places[-1][0] + 1, 0))
        _draw_tokens(axis, strip, shown, places)
        _draw_bar(_axes(figure, _MARGIN, top + 0.5 + tall, 3.2, 0.1), strip)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box is drawn; the page shows the character
        figure.savefig(out, dpi=min(120, _HIGHEST / figure.get_figheight()))
    plt.close(figure)


def _draw_tokens(axis: plt.Axes, strip: Strip, shown: Sequence[str], places: Sequence[tuple[int, int, int]]) -> None:
    axis.set_title(strip.title, loc="left", fontsize=11, pad=18, parse_math=False)
    axis.annotate(strip.note, (0, 1), (0, 5), "axes fraction", "offset points", fontsize=8, color="#555555")
    size = 72 * (_WIDTH - 2 * _MARGIN) / _COLUMNS / 0.602  # a character's width of DejaVu Sans Mono
    fills, inks = strip.paint()
    boxes = [plt.Rectangle((column, line), width, 0.82) for line, column, width in places]
    axis.add_collection(PatchCollection(boxes, facecolor=fills, edgecolor="white"), autolim=False)
    for text, (line, column, _), ink in zip(shown, places, inks, strict=True):
        axis.text(column, line + 0.4, text, color=ink, size=size, family="monospace", va="center", parse_math=False)
    lines, columns, widths = np.array(places)[strip.underlined].T
    axis.hlines(lines + 0.9, columns + 0.1, columns + widths - 0.1, color="#111111", linewidth=2)


def _draw_bar(axis: plt.Axes, strip: Strip) -> None:
    axis.set_axis_on()
    axis.figure.colorbar(strip.colours, cax=axis, orientation="horizontal").ax.tick_params(labelsize=7)
    axis.text(1.04, 0.5, strip.unit, transform=axis.transAxes, fontsize=8, va="center")


def _axes(figure: plt.Figure, left: float, top: float, width: float, height: float) -> plt.Axes:
    """Axes without lines, placed by inches from the upper left corner."""
    whole = figure.get_figheight()
    axis = figure.add_axes((left / _WIDTH, 1 - (top + height) / whole, width / _WIDTH, height / whole), anchor="NW")
    axis.set_axis_off()
    return axis
