"""Assign the tokens of answers, and their entropy, to words."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from omniq_verl.evaluation.intervals import LEVEL, Interval, draws, percentiles

_UNIT = re.compile(r"</?\w+>|[0-9]+(?:\.[0-9]+)?|[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|[^\w\s]|_")
_NUMBER = re.compile(r"[0-9]")
NUMBER, BLANK = "(number)", "(blank or end)"


def words_of(texts: Sequence[str]) -> list[str]:
    """Return the word that each token belongs to: a tag, a number, a word in lower case, or a sign.

    A token that spans several words counts for the first word that begins in it, or else for the word that continues in
    it. All numbers count as one word.

    Args:
        texts: text that each token adds; joined, they are the answer.
    """
    joined = "".join(texts)
    units = [(found.start(), found.end(), _name(found[0])) for found in _UNIT.finditer(joined)]
    starts, found, position = [unit[0] for unit in units], [], 0
    for text in texts:
        end = position + len(text)
        at = int(np.searchsorted(starts, position))
        if at < len(units) and starts[at] < end:
            found.append(units[at][2])
        elif at and position < units[at - 1][1] and text:
            found.append(units[at - 1][2])
        else:
            found.append(BLANK)
        position = end
    return found


def _name(unit: str) -> str:
    return NUMBER if _NUMBER.match(unit) else unit.lower()


def entropy_shares(tokens: pd.DataFrame, resamples: int, seed: int = 0) -> pd.DataFrame:
    """Return each word's share of the entropy of all answers, largest first.

    Args:
        tokens: one row per token with ``answer`` (its index), ``word``, ``entropy``, and ``passed`` (the gate).
        resamples: bootstrap resamples over answers.
        seed: seed of the draws.

    Returns:
        One row per ``word``: ``share`` of the entropy, ``low`` and ``high`` of its interval, ``tokens`` (share of all
        tokens), ``mean`` entropy in nats, ``passed`` (share of its tokens that pass the gate).
    """
    total = tokens.entropy.sum()
    groups = tokens.groupby("word")
    found = pd.DataFrame(
        {
            "share": groups.entropy.sum() / total if total > 0 else groups.entropy.sum(),
            "tokens": groups.size() / len(tokens),
            "mean": groups.entropy.mean(),
            "passed": groups.passed.mean(),
        }
    ).sort_values(["share", "tokens"], ascending=False, kind="stable")
    by_answer = tokens.pivot_table(index="answer", columns="word", values="entropy", aggfunc="sum", fill_value=0.0)
    bounds = _bounds(by_answer[found.index].to_numpy(), resamples, seed)
    return found.assign(**{side: [getattr(one, side) for one in bounds] for side in ("low", "high")})


def _bounds(sums: np.ndarray, resamples: int, seed: int) -> list[Interval]:
    """Return the interval of each column's share of the total, resampling the rows of ``[answers, words]``."""
    if len(sums) < 2:
        return [Interval()] * sums.shape[1]
    parts = []
    for counts in draws(len(sums), resamples, seed):
        drawn = counts @ sums
        whole = drawn.sum(axis=1, keepdims=True)
        parts.append(np.where(whole > 0, drawn / np.where(whole > 0, whole, 1), np.nan))
    return [percentiles(column, LEVEL) for column in np.concatenate(parts).T]
