"""Does a GRPO run learn to please its reward without scoring better?

The report on a run's folder compares the reward with what it should improve, the correlation with the labels. It also
shows signs that the reward is earned in other ways: longer answers, repeated phrases, one text for all images, and
scores that crowd together or stay at the middle of the scale, where a Gaussian reward is safest.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from omniq_verl.data.names import shown_name
from omniq_verl.evaluation.correlations import correlations
from omniq_verl.evaluation.curves import COLOURS, read_curves
from omniq_verl.evaluation.intervals import LEVEL, Interval, Ranks, draws, percentiles, weighted_pearson
from omniq_verl.findings.dumps import FOLDERS, dump_files, read_dump
from omniq_verl.findings.measures import cell
from omniq_verl.findings.page import Finding, as_figure, label, new_figure, table, write_finding
from omniq_verl.generation.provenance import provenance, record_start

MIDDLE = 0.1
"""Half the width of the scale's middle, as a share of the scale. Our choice."""
_CURVES = ("reward", "validation_reward", "validation_srcc", "response_length", "entropy")


def measures(answers: pd.DataFrame) -> dict[str, float]:
    """Measure the answers of one step.

    Args:
        answers: from ``dumps.read_dump``.

    Returns:
        ``reward`` (mean), ``srcc`` (between scores and labels, over the answers with a score), ``parsed`` (share of
        answers with a score), ``words`` (mean per answer), ``repeated`` (mean share of repeated phrases), ``same_text``
        (share of answers with the most frequent reasoning), ``same_score`` (share of scores equal to the most frequent
        one), ``spread`` (standard deviation of the scores divided by that of the labels), ``middle`` (share of scores
        within ``MIDDLE`` of the scale's middle) and ``middle_labels`` (the same for the labels). NaN if undefined.
    """
    scored = answers[answers.score.notna() & answers.target.notna()]
    srcc = correlations(scored.score.to_numpy(), scored.target.to_numpy())["srcc"] if len(scored) else None
    labels = float(scored.target.std(ddof=0)) if len(scored) else 0.0
    return {
        "reward": float(answers.reward.mean()),
        "srcc": np.nan if srcc is None else srcc,
        "parsed": float(answers.score.notna().mean()),
        "words": float(answers.words.mean()),
        "repeated": float(answers.repeated.mean()),
        "same_text": float(answers.reasoning.value_counts(normalize=True).iloc[0]),
        "same_score": float(scored.score.value_counts(normalize=True).iloc[0]) if len(scored) else np.nan,
        "spread": float(scored.score.std(ddof=0)) / labels if labels > 0 else np.nan,
        "middle": float(in_middle(scored, "score").mean()) if len(scored) else np.nan,
        "middle_labels": float(in_middle(scored, "target").mean()) if len(scored) else np.nan,
    }


def in_middle(answers: pd.DataFrame, column: str) -> pd.Series:
    """Return 1 for values within ``MIDDLE`` of their scale's middle and 0 for others; NaN if the scale is unknown."""
    width = answers.high - answers.low
    near = ((answers[column] - (answers.low + answers.high) / 2).abs() <= MIDDLE * width + 1e-9).astype(float)
    return near.where(width.notna())


MEANS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "reward": lambda answers: answers.reward,
    "parsed": lambda answers: answers.score.notna().astype(float),
    "words": lambda answers: answers.words.astype(float),
    "repeated": lambda answers: answers.repeated,
    "middle": lambda answers: in_middle(answers, "score").where(answers.score.notna()),
}
"""The measures that are means over answers. Each function gives the values that are averaged."""


def intervals(answers: pd.DataFrame, resamples: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the values of the means and of ``srcc`` in bootstrap resamples of the images ``[resamples]``.

    All answers to an image are drawn together. For the correlation, every resample is ranked again.

    Args:
        answers: from ``dumps.read_dump``.
        resamples: number of resamples.
        seed: seed of the draws.
    """
    numbers = answers.groupby("image", sort=False).ngroup().to_numpy()
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*MEANS, "srcc")}
    values = {name: of(answers).to_numpy(float) for name, of in MEANS.items()}
    scored = (answers.score.notna() & answers.target.notna()).to_numpy()
    x, y = answers.score.to_numpy()[scored], answers.target.to_numpy()[scored]
    ranks = (Ranks(x), Ranks(y)) if scored.any() else ()
    for counts in draws(int(numbers.max()) + 1, resamples, seed):
        weights = counts[:, numbers]
        for name, value in values.items():
            known = np.isfinite(value)
            total = weights[:, known].sum(axis=1)
            mean = weights[:, known] @ value[known] / np.where(total > 0, total, 1)
            found[name].append(np.where(total > 0, mean, np.nan))
        mine = weights[:, scored]
        undefined = np.full(len(counts), np.nan)
        sides = [one.among(mine) for one in ranks]
        found["srcc"].append(weighted_pearson(sides[0], sides[1], mine) if sides else undefined)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def find_reward_hacking(run: Path, answers: Path | None, out: Path, resamples: int, console: Console) -> Finding:
    """Read a run's metrics and saved answers, and write the page.

    Args:
        run: ``trainer.default_local_dir`` of a GRPO run.
        answers: folder with ``STEP.jsonl``; None: ``validation`` or ``rollouts`` in the run's folder.
        out: folder for the results.
        resamples: bootstrap resamples over images.
        console: for progress.

    Raises:
        ValueError: the run has no metrics, or saved answers of fewer than two steps.
    """
    curves = read_curves(run, _CURVES)
    folder = answers or next((run / name for name in FOLDERS if dump_files(run / name)), run / FOLDERS[0])
    files = dump_files(folder)
    if len(files) < 2:
        raise ValueError(
            f"{folder} has the answers of {len(files)} steps, but two are needed to compare. Fix: train with"
            " trainer.validation_data_dir or trainer.rollout_data_dir, and name that folder with --answers"
        )
    steps, drawn = [], {}
    for step, path in files.items():
        one = read_dump(path)
        drawn[step] = intervals(one, resamples, step)
        bounds = {name: percentiles(values, LEVEL) for name, values in drawn[step].items()}
        steps.append({"step": step, "answers": len(one), "images": one.image.nunique(), **_figures(one, bounds)})
    change = _changes(steps, drawn)
    finding = Finding(
        name="reward-hacking",
        title="Is the reward earned by better scores?",
        question=f"The run {shown_name(run)}: its reward next to the correlation with the labels, and signs that the"
        f" reward is earned in other ways. The answers are from {shown_name(folder)}.",
        found=[*_verdict(change), _reward_sentence(curves)],
        tables=_tables(steps, change),
        numbers={"steps": steps, "change": change, "curves": _json(curves)},
        record=provenance(record_start(out), run=str(run), answers=str(folder), resamples=resamples),
        figures={"": draw(steps, curves)},
        reading=READING,
    )
    write_finding(out, finding, console)
    return finding


READING = (
    "A reward that rises while SRCC does not is the sign to look for. The Gaussian and threshold rewards pay for"
    " scores near the label, which a model can also earn by answering near the mean of all labels: then the spread"
    " and SRCC fall.",
    "Spread is the standard deviation of the scores over that of the labels: 1 is the labels' own, near 0 is the"
    " same score for all.",
    "Scores at the middle are those within a tenth of the scale. Compare them with the labels' share, in brackets"
    " in the table.",
    "One text is the share of answers with the most frequent reasoning, word for word. It grows as entropy falls.",
    "Repeated phrases are the share of three-word sequences that occurred earlier in the same answer.",
    "Bands are 95% bootstrap intervals over images; all answers to an image are resampled together. Changes"
    " compare the last step with the first as two samples: the pairing of images is not used, which makes the"
    " intervals wide.",
)
NAMES = {
    "reward": "reward",
    "srcc": "SRCC",
    "parsed": "share of answers with a score",
    "words": "words of an answer",
    "repeated": "repeated phrases",
    "same_text": "most frequent reasoning",
    "same_score": "most frequent score",
    "spread": "spread of scores / labels",
    "middle": "scores at the middle",
}


def _figures(answers: pd.DataFrame, bounds: dict[str, Interval]) -> dict[str, Any]:
    found = {}
    for name, value in measures(answers).items():
        known = None if np.isnan(value) else value
        found[name] = as_figure(known, bounds.get(name, Interval()), len(answers))
    return found


def _changes(steps: Sequence[dict[str, Any]], drawn: dict[int, dict[str, np.ndarray]]) -> dict[str, Any]:
    first, last = steps[0], steps[-1]
    found: dict[str, Any] = {"first": first["step"], "last": last["step"]}
    for name in NAMES:
        before, after = first[name]["value"], last[name]["value"]
        bounds = Interval()
        if name in drawn[first["step"]]:
            bounds = percentiles(drawn[last["step"]][name] - drawn[first["step"]][name], LEVEL)
        found[name] = as_figure(None if None in (before, after) else after - before, bounds, last["answers"])
    return found


def _verdict(change: dict[str, Any]) -> list[str]:
    """Say how the reward and the correlation changed from the first step to the last, each with its interval."""
    moves = {name: _move(change[name]) for name in ("reward", "srcc")}
    summary = f"From step {change['first']} to {change['last']}: reward {cell(change['reward'], '+.3f')}, SRCC"
    summary += f" {cell(change['srcc'], '+.3f')}."
    if moves["reward"] == "rises" and moves["srcc"] != "rises":
        summary += " The reward rises, and it is not shown that SRCC does: look at the signs."
    elif moves["reward"] == "rises":
        summary += " Both rise: the reward is earned by better scores, at least in part."
    else:
        summary += " The reward's interval includes no change, or a fall: nothing was learned that could be hacked."
    signs = [name for name in ("words", "repeated", "middle") if _move(change[name]) == "rises"]
    named = ", ".join(NAMES[name] for name in signs)
    return [
        summary,
        f"Signs whose interval is above 0: {named or 'none'} (of words, repeated phrases and scores at the middle).",
    ]


def _move(change: dict[str, Any]) -> str:
    if change["low"] is None:
        return "unknown"
    return "rises" if change["low"] > 0 else "falls" if change["high"] < 0 else "stays"


def _reward_sentence(curves: pd.DataFrame) -> str:
    known = curves.reward.dropna()
    if known.empty:
        return "The run's log has no reward of its rollouts."
    return (
        f"Reward of the rollouts in training: {known.iloc[0]:.3f} at step {known.index[0]}, {known.iloc[-1]:.3f}"
        " at step"
        f" {known.index[-1]}."
    )


def _tables(steps: Sequence[dict[str, Any]], change: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, title in NAMES.items():
        form = ".1f" if name == "words" else ".3f"
        cells = [cell(one[name], form) for one in steps]
        if name == "middle":
            middles = [one["middle_labels"]["value"] for one in steps]
            cells = [
                text if value is None else f"{text.split(' [')[0]} ({value:.3f})"
                for text, value in zip(cells, middles, strict=True)
            ]
        rows.append([title, *cells, cell(change[name], f"+{form}")])
    counts = ["answers", *(str(one["answers"]) for one in steps), "-"]
    return [table("By step", ["measure", *(f"step {one['step']}" for one in steps), "change"], [*rows, counts])]


def _json(curves: pd.DataFrame) -> dict[str, dict[str, float]]:
    return {str(name): {str(step): float(value) for step, value in curves[name].dropna().items()} for name in curves}


_PANELS = (
    (("reward",), "reward"),
    (("srcc",), "SRCC with the labels"),
    (("words",), "words of an answer"),
    (("repeated", "same_text"), "share"),
    (("spread",), "spread: scores / labels"),
    (("middle", "same_score"), "share of scores"),
)


def draw(steps: Sequence[dict[str, Any]], curves: pd.DataFrame) -> Figure:
    """Draw six panels over the steps, with bands for measures that have an interval, and the logged training reward."""
    figure, axes = new_figure(4.8, 3, 2, sharex=True)
    for axis, (names, unit) in zip(axes.flat, _PANELS, strict=True):
        for ref, name in enumerate(names):
            _draw_measure(axis, steps, name, ref)
        label(axis, "", "", unit)
        axis.grid(alpha=0.3)
        if len(names) > 1:
            _legend_above(axis)
    reward = curves.reward.dropna()
    if len(reward):
        axes[0, 0].plot(reward.index, reward.to_numpy(), ":", color="0.4", linewidth=1, label="rollouts")
        _legend_above(axes[0, 0])
    for axis in axes[-1]:
        axis.set_xlabel("GRPO step", fontsize=7)
    return figure


def _legend_above(axis: Any) -> None:
    """Put the legend above the panel; inside such a small panel it would hide lines."""
    axis.legend(fontsize=5.5, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def _draw_measure(axis: Any, steps: Sequence[dict[str, Any]], name: str, ref: int) -> None:
    known = [one for one in steps if one[name]["value"] is not None]
    x = [one["step"] for one in known]
    style = ("-o", "--s")[ref]
    axis.plot(x, [one[name]["value"] for one in known], style, color=COLOURS[ref], markersize=3, linewidth=1.2,
              label=NAMES[name])  # fmt: skip
    bounded = [one for one in known if one[name]["low"] is not None]
    low, high = ([one[name][end] for one in bounded] for end in ("low", "high"))
    axis.fill_between([one["step"] for one in bounded], low, high, color=COLOURS[ref], alpha=0.15, linewidth=0)
