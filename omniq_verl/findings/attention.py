"""How much attention goes to the image, the prompt and the reasoning while the score is written.

Source: RALI, section 3.2 and figure 3: 95% on reasoning and 5% on visual tokens, "excluding the fixed prompt".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console

from omniq_verl.evaluation.curves import COLOURS
from omniq_verl.evaluation.intervals import Interval, mean_interval
from omniq_verl.findings.attention_rows import NAME, register, summed_rows
from omniq_verl.findings.page import Finding, as_figure, label, new_figure, table, with_interval, write_finding
from omniq_verl.findings.reader import Read, Reader
from omniq_verl.findings.reading_loop import Skipped, read_answers
from omniq_verl.findings.setup import Answered, Setup, ask_all, check_readable
from omniq_verl.findings.tokens import KINDS
from omniq_verl.generation.request import Sampling

IMAGE, REASONING = KINDS.index("image"), KINDS.index("reasoning")


@dataclass(frozen=True)
class Shares:
    """One model's attention over N images."""

    name: str
    keys: list[str]
    weights: np.ndarray
    """Shares of the kinds of tokens, by image, layer and head ``[N, L, H, K]``, in the order of ``tokens.KINDS``.

    They sum to 1 over the kinds.
    """
    tokens: np.ndarray
    """Number of tokens of each kind ``[N, K]``."""
    skipped: str

    def of_kind(self) -> np.ndarray:
        """Return the mean over layers and heads ``[N, K]``."""
        return self.weights.mean(axis=(1, 2))

    def reasoning(self) -> np.ndarray:
        """Return reasoning's part of the attention on reasoning and image, over all layers and heads ``[N]``."""
        return reasoning_part(self.of_kind())


def reasoning_part(shares: np.ndarray) -> np.ndarray:
    """Return reasoning's part of the attention on reasoning and image. The prompt is left out, as in RALI's figure 3.

    Args:
        shares: ``[..., K]``.

    Returns:
        In [0, 1], ``[...]``; NaN where neither gets any attention.
    """
    both = shares[..., IMAGE] + shares[..., REASONING]
    return np.divide(shares[..., REASONING], both, out=np.full(both.shape, np.nan), where=both > 0)


@torch.inference_mode()
def answer_shares(reader: Reader, read: Read) -> np.ndarray:
    """Return the attention of the positions that predict the score's tokens, by layer, head and kind ``[L, H, K]``.

    The position before a token is where the model is when it writes that token, so its row of attention is used. If the
    score has several tokens, the result is their mean.

    Args:
        reader: a model opened with the attention of ``attention_rows``.
        read: question and answer.
    """
    groups = torch.tensor([[kind == one for one in KINDS] for kind in read.kinds], dtype=torch.float32)
    with summed_rows(read.at("score") - 1, groups) as sums:
        reader.model(**reader.on_device(read.inputs), logits_to_keep=1)
    return sums.shares().numpy()


def measure(setup: Setup, answered: Answered, console: Console) -> Shares:
    """Measure the shares of one model over its own greedy answers.

    Raises:
        ValueError: no answer has both reasoning and a score.
    """
    register()
    reader, skipped = Reader(answered.spec, NAME), Skipped()
    keys, weights, tokens = [], [], []
    for key, read in read_answers(setup, answered, reader, skipped, console):
        keys.append(key)
        weights.append(answer_shares(reader, read))
        tokens.append([read.kinds.count(kind) for kind in KINDS])
    if not keys:
        raise ValueError(
            f"{answered.name}: no answer has reasoning in <think></think> and a readable score ({skipped.text()})."
            " Fix: give a model and data whose task asks for reasoning, or a larger --max-tokens"
        )
    return Shares(answered.name, keys, np.stack(weights), np.array(tokens), skipped.text())


def find_attention(setup: Setup, console: Console) -> Finding:
    """Ask every model, run it over its answers, and write the page. Returns the content of the page.

    Raises:
        ValueError: a model's weights are not available locally, or no answer can be used.
    """
    check_readable(setup.specs)
    answered = ask_all(setup, Sampling(max_tokens=setup.max_tokens), console)
    shares = [measure(setup, one, console) for one in answered]
    numbers = {"kinds": list(KINDS), "models": {one.name: _numbers(one, setup) for one in shares}}
    finding = Finding(
        name="attention",
        title="Where the score looks: attention to image, prompt and reasoning",
        question="While a model writes its score, each of its attention heads distributes a weight of 1 over all"
        " preceding tokens. This is the share of the image, the prompt, the reasoning and the format.",
        found=[_sentence(one, setup) for one in shares],
        tables=_tables(shares, setup),
        numbers=numbers,
        record=setup.record(positions="the positions from which the score's tokens are predicted"),
        figures={"": draw(shares)},
        reading=READING,
    )
    write_finding(setup.out, finding, console)
    return finding


READING = (
    "RALI's figure 3 gives 95% for reasoning against 5% for the image, with the fixed prompt left out. Compare"
    " the last column of the first table with it.",
    "If attention were spread evenly, each kind would get its share of the tokens, which the last table shows. A"
    " share below that means that the score attends to this kind less than to a random token.",
    "Heads put much weight on the first token of a text whatever it says (attention sinks). Here that token"
    " belongs to the prompt, which is one reason to leave the prompt out.",
    "Attention does not prove causation: layers pass on what earlier ones have read, so image features can reach"
    " the score through the tokens of prompt and reasoning. `omniq findings text-only` changes the text or takes"
    " the image away.",
)


def _sentence(one: Shares, setup: Setup) -> str:
    part = one.reasoning()
    return (
        f"{one.name}: of the attention on reasoning and image, reasoning gets"
        f" {with_interval(float(np.nanmean(part)), _interval(part, setup))}, over {len(one.keys)} images."
    )


def _interval(values: np.ndarray, setup: Setup) -> Interval:
    return mean_interval(values[np.isfinite(values)], setup.resamples)


def _numbers(one: Shares, setup: Setup) -> dict[str, Any]:
    kinds, part = one.of_kind(), one.reasoning()
    return {
        "images": len(one.keys),
        "left_out": one.skipped,
        "share": {
            kind: as_figure(float(kinds[:, ref].mean()), _interval(kinds[:, ref], setup), len(kinds))
            for ref, kind in enumerate(KINDS)
        },
        "tokens": dict(zip(KINDS, one.tokens.mean(axis=0).tolist(), strict=True)),
        "reasoning_of_reasoning_and_image": as_figure(float(np.nanmean(part)), _interval(part, setup), len(part)),
        "by_layer_and_head": one.weights.mean(axis=0).tolist(),
    }


def _tables(shares: Sequence[Shares], setup: Setup) -> list[dict[str, Any]]:
    rows, counts = [], []
    for one in shares:
        kinds, part = one.of_kind(), one.reasoning()
        cells = [with_interval(float(kinds[:, k].mean()), _interval(kinds[:, k], setup)) for k in range(len(KINDS))]
        rows.append([one.name, *cells, with_interval(float(np.nanmean(part)), _interval(part, setup))])
        mean = one.tokens.mean(axis=0)
        counts.append([one.name, *(f"{value:.1f} ({value / mean.sum():.3f})" for value in mean), one.skipped])
    columns = ["model", *KINDS, "reasoning / (reasoning + image)"]
    return [
        table("Share of attention, mean over layers and heads", columns, rows),
        table("Tokens of a sequence, and their share", ["model", *KINDS, "answers left out"], counts),
    ]


def draw(shares: Sequence[Shares]) -> Figure:
    """Draw one row per model. Left: the shares by layer. Right: reasoning's part by layer and head."""
    figure, axes = new_figure(1.75 * len(shares) + 0.3, len(shares), 2)
    for (left, right), one in zip(axes, shares, strict=True):
        mean = one.weights.mean(axis=0)
        _draw_layers(left, mean.mean(axis=1))
        drawn = right.imshow(reasoning_part(mean), cmap="cividis", vmin=0, vmax=1, aspect="auto", origin="lower")
        bar = figure.colorbar(drawn, ax=right, pad=0.02)
        bar.ax.tick_params(labelsize=6)
        bar.set_label("reasoning / (reasoning + image)", fontsize=6)
        label(left, one.name, "layer", "share of attention")
        label(right, "", "head", "layer")
        for axis, size in ((left.xaxis, len(mean)), (right.yaxis, len(mean)), (right.xaxis, mean.shape[1])):
            axis.set_ticks(range(0, size, max(1, size // 6)))
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(KINDS), fontsize=6, frameon=False,
                  handlelength=1, columnspacing=0.8)  # fmt: skip
    return figure


_HATCHES = ("", "////", "", "....", "")


def _draw_layers(axis: Any, layers: np.ndarray) -> None:
    below = np.zeros(len(layers))
    for ref, kind in enumerate(KINDS):
        axis.bar(range(len(layers)), layers[:, ref], bottom=below, color=COLOURS[ref], hatch=_HATCHES[ref],
                 edgecolor="white", linewidth=0.3, label=kind)  # fmt: skip
        below = below + layers[:, ref]
    axis.set_ylim(0, 1)
