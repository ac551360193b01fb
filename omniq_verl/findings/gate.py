"""Which words carry the entropy, which of them does the entropy gate keep, and do its tokens have large gradients?

Source: OmniQuality-R, eq. 1 (the gate) and figures 8 to 10 (single images). The answers are sampled at temperature 1,
as in training.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from rich.console import Console
from scipy import stats

from omniq_verl.evaluation.curves import COLOURS
from omniq_verl.evaluation.heatmap import token_numbers
from omniq_verl.evaluation.intervals import Interval
from omniq_verl.findings.gradients import answer_pass, full_gradients, output_gradients
from omniq_verl.findings.measures import correlation_bounds
from omniq_verl.findings.page import Finding, as_figure, label, new_figure, number, table, with_interval, write_finding
from omniq_verl.findings.reader import Reader
from omniq_verl.findings.reading_loop import Skipped, read_answers
from omniq_verl.findings.setup import Answered, Setup, ask_all, check_readable
from omniq_verl.findings.words import entropy_shares, words_of
from omniq_verl.generation.request import Sampling
from omniq_verl.losses.entropy_gate import top_share_threshold
from omniq_verl.losses.settings import GateSettings

SHOWN = 15
"""Number of words in the plot. The table has twice as many, and the JSON has all of them."""
EACH = 8
"""Number of tokens per answer for which the gradient with respect to all weights is computed."""


@dataclass(frozen=True)
class Tokens:
    """All tokens of one model's answers."""

    name: str
    table: pd.DataFrame
    """One row per token: ``answer``, ``kind``, ``word``, ``entropy``, ``passed``, ``output_gradient``, ``gradient``
    (NaN if it was not computed)."""
    threshold: float
    """Lowest entropy that passes the gate."""
    skipped: str


def measure_tokens(setup: Setup, answered: Answered, rho: float, gradients: int, console: Console) -> Tokens:
    """Measure every token of the answers, and apply the gate with one threshold for all of them.

    Args:
        setup: options of the finding.
        answered: the model and its answers.
        rho: share of the tokens that pass.
        gradients: number of tokens for which the gradient with respect to all weights is computed, ``EACH`` per answer.
        console: for progress.

    Raises:
        ValueError: no answer has reasoning and a score.
    """
    reader, skipped, parts = Reader(answered.spec), Skipped(), []
    for ref, (_key, read) in enumerate(read_answers(setup, answered, reader, skipped, console)):
        logits, hidden = answer_pass(reader, read)
        ids = read.inputs["input_ids"][0, read.question :].tolist()
        part = token_numbers(logits, ids)[["entropy"]].astype(float)
        part = part.assign(answer=ref, kind=read.kinds[read.question :], word=words_of(read.texts), gradient=np.nan)
        part["output_gradient"] = output_gradients(logits, hidden, ids).numpy()
        if ref * EACH < gradients:
            random = np.random.default_rng([setup.seed, ref])
            few = min(EACH, gradients - ref * EACH, len(part))
            chosen = sorted(random.choice(len(part), few, replace=False).tolist())
            part.loc[chosen, "gradient"] = full_gradients(reader, read, chosen)
        parts.append(part)
    if not parts:
        raise ValueError(
            f"{answered.name}: no answer has reasoning and a readable score ({skipped.text()}). Fix: give a model and"
            " data whose task asks for reasoning, or a larger --max-tokens"
        )
    tokens = pd.concat(parts, ignore_index=True)
    entropies = torch.tensor(tokens.entropy.tolist(), dtype=torch.float64)
    threshold = top_share_threshold(entropies, rho)
    return Tokens(answered.name, tokens.assign(passed=tokens.entropy >= threshold), threshold, skipped.text())


def gradient_correlation(tokens: pd.DataFrame, column: str, resamples: int) -> dict[str, Any]:
    """Return Spearman's correlation of entropy and gradient norm, over the tokens whose gradient was computed."""
    known = tokens[tokens[column].notna()]
    if len(known) < 3 or known.entropy.nunique() < 2 or known[column].nunique() < 2:
        return as_figure(None, Interval(), len(known))
    value = float(stats.spearmanr(known.entropy, known[column])[0])
    bounds = correlation_bounds(known.entropy.to_numpy(), known[column].to_numpy(), resamples)
    return as_figure(value, bounds["srcc"], len(known))


def find_gate(setup: Setup, rho: float, gradients: int, console: Console) -> Finding:
    """Ask every model at temperature 1, measure its answers, and write the page.

    Raises:
        ValueError: rho is not in (0, 1], a model's weights are not available locally, or no answer can be used.
    """
    GateSettings(rho)  # checks it
    check_readable(setup.specs)
    answered = ask_all(setup, Sampling(1, 1.0, max_tokens=setup.max_tokens), console)
    found = [measure_tokens(setup, one, rho, gradients, console) for one in answered]
    shares = {one.name: entropy_shares(one.table, setup.resamples) for one in found}
    numbers = {one.name: _numbers(one, shares[one.name], setup) for one in found}
    endings = [""] if len(found) == 1 else [f"model_{ref}" for ref in range(1, len(found) + 1)]
    finding = Finding(
        name="gate",
        title="Where the entropy is, and what the gate keeps",
        question="The entropy of every token of answers that were sampled at temperature 1, by word. The gate keeps"
        f" the share {rho:g} with the highest entropy, with one threshold for all answers.",
        found=[_sentence(name, one) for name, one in numbers.items()],
        tables=[part for one in found for part in _tables(one, shares[one.name], numbers[one.name])],
        numbers={"rho": rho, "models": numbers},
        record=setup.record(rho=rho, temperature=1.0, gradients=gradients),
        figures={end: draw(one, shares[one.name]) for end, one in zip(endings, found, strict=True)},
        reading=READING,
    )
    write_finding(setup.out, finding, console)
    return finding


READING = (
    "A word's share is the sum of its tokens' entropies over that of all tokens. Entropy is that of the next"
    " token before it is drawn, so it is counted for the word that was drawn there.",
    "There is one threshold for the whole data set, while training uses one for each mini-batch.",
    "The policy gradient of a token is its advantage times the gradient of its log-probability. If entropy and"
    " the gradient norm correlate, the gate keeps the tokens that would move the weights most, whatever their"
    " advantage.",
    "Gradients with respect to the output layer are exact and cover all tokens; those with respect to all weights"
    " cover a random few. Intervals resample single tokens, although those of one answer are related.",
)


def _numbers(one: Tokens, shares: pd.DataFrame, setup: Setup) -> dict[str, Any]:
    tokens = one.table
    kinds = tokens.groupby("kind")
    total = tokens.entropy.sum()
    words = shares.astype(object).where(shares.notna(), None)
    return {
        "answers": int(tokens.answer.nunique()),
        "tokens": len(tokens),
        "left_out": one.skipped,
        "mean_entropy": float(tokens.entropy.mean()),
        "threshold": one.threshold,
        "passed": float(tokens.passed.mean()),
        "entropy_passed": float(tokens.entropy[tokens.passed].sum() / total) if total > 0 else None,
        "kinds": {
            name: {"tokens": len(some) / len(tokens), "passed": float(some.passed.mean()),
                   "entropy": float(some.entropy.sum() / total) if total > 0 else None}
            for name, some in kinds
        },
        "entropy_and_gradient": {
            "output_layer": gradient_correlation(tokens, "output_gradient", setup.resamples),
            "all_weights": gradient_correlation(tokens, "gradient", setup.resamples),
        },
        "words": {str(word): row for word, row in words.to_dict("index").items()},
    }  # fmt: skip


def _sentence(name: str, found: dict[str, Any]) -> str:
    top = list(found["words"])[:5]
    both = found["entropy_and_gradient"]
    shown = ", ".join(f"{key.replace('_', ' ')} {_cell(value)}" for key, value in both.items())
    return (
        f"{name}: {number(found['entropy_passed'], '.1%')} of the entropy lies in the {found['passed']:.1%} of"
        " tokens that"
        f" pass; most is in {', '.join(repr(word) for word in top)}. Spearman's correlation of entropy and"
        f" gradient: {shown}."
    )


def _cell(figure: dict[str, Any]) -> str:
    return with_interval(figure["value"], Interval(figure["low"], figure["high"]))


def _tables(one: Tokens, shares: pd.DataFrame, numbers: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for word, row in shares.head(2 * SHOWN).iterrows():
        share = with_interval(row.share, Interval(row.low, row.high))
        rows.append([str(word), share, number(row.tokens), number(row["mean"]), number(row.passed, ".0%")])
    kinds = [
        [kind, number(row["entropy"]), number(row["tokens"]), number(row["passed"], ".0%")]
        for kind, row in numbers["kinds"].items()
    ]
    both = [[key.replace("_", " "), _cell(row), str(row["n"])] for key, row in numbers["entropy_and_gradient"].items()]
    title = f"{one.name}: {numbers['answers']} answers, {numbers['tokens']} tokens, left out: {one.skipped}"
    return [
        table(title, ["word", "share of entropy", "share of tokens", "mean entropy, nats", "passes"], rows),
        table(f"{one.name}: parts of an answer", ["part", "share of entropy", "share of tokens", "passes"], kinds),
        table(f"{one.name}: entropy and gradient", ["gradient by", "Spearman", "tokens"], both),
    ]


def draw(one: Tokens, shares: pd.DataFrame) -> Figure:
    """Draw the words with most of the entropy (above), and each token's entropy against its gradient norm (below)."""
    figure, axes = new_figure(4.6, 2, 1, height_ratios=[3, 2])
    top = shares.head(SHOWN)
    bars, scatter = axes[:, 0]
    refs = np.arange(len(top))
    bars.barh(refs, top.share, color=COLOURS[0], height=0.7)
    known = top.low.notna().to_numpy()
    bars.hlines(refs[known], top.low[known].astype(float), top.high[known].astype(float), color="black", linewidth=0.9)
    bars.set_yticks(
        refs, [f"{word}  ({row.passed:.0%})" for word, row in top.iterrows()], fontsize=6.5, parse_math=False
    )
    bars.invert_yaxis()
    label(bars, one.name, "share of the entropy\n(in brackets: tokens that pass)")
    _draw_scatter(scatter, one)
    return figure


def _draw_scatter(axis: Any, one: Tokens) -> None:
    whole = one.table.gradient.notna().any()
    column = "gradient" if whole else "output_gradient"
    tokens = one.table[one.table[column].notna()]
    if len(tokens) > 3000:
        tokens = tokens.sample(3000, random_state=0)
    for ref, (passed, name) in enumerate(((False, "gated out"), (True, "passes"))):
        mine = tokens[tokens.passed == passed]
        axis.scatter(mine.entropy, mine[column], s=7, alpha=0.6, linewidths=0, color=COLOURS[ref],
                     marker="o^"[ref], label=name)  # fmt: skip
    axis.axvline(one.threshold, color="0.4", linewidth=0.8, linestyle=":")
    axis.legend(fontsize=6, frameon=False)
    label(axis, "", "entropy of the token, nats", f"gradient norm, {'all weights' if whole else 'output layer'}")
