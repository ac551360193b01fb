"""How much of the score is in the text of the reasoning?

There are three experiments. The model scores from its own text without the image. It scores the image with the text of
another image. A ridge regression predicts the labels from the text's words, and another one from the image's tokens.
Source: RALI, section 3.3, and arXiv 2601.02441, which compares the paths from image and from text to the score.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from omniq_verl.evaluation.correlations import correlations
from omniq_verl.evaluation.curves import COLOURS
from omniq_verl.evaluation.paired import paired_difference
from omniq_verl.findings.features import has_number, ridge_on_texts, ridge_predictions, token_features
from omniq_verl.findings.forced import forced_score
from omniq_verl.findings.measures import agreement, cell
from omniq_verl.findings.page import Finding, label, new_figure, number, table, write_finding
from omniq_verl.findings.reader import Reader
from omniq_verl.findings.setup import Answered, Question, Setup, ask_all, check_readable, questions
from omniq_verl.generation.request import Sampling
from omniq_verl.generation.store import Store, read_store
from omniq_verl.rewards.parsing import parse_response
from omniq_verl.tasks import ForbiddenText, task_of

IMAGE_AND_TEXT, TEXT_ALONE, CROSSED = "image and own text", "own text alone", "image and another image's text"
RIDGE_TEXT, RIDGE_VISUAL = "ridge on the text's words", "ridge on the image's tokens"


def reasonings(answered: Answered) -> dict[str, str]:
    """Return the reasoning of each image's first answer, if it has one and a parsable score, by the image's key."""
    first = answered.answers[(answered.answers["sample"] == 0) & (answered.answers.status == "ok")]
    found = {}
    for key, answer in zip(first.key, first.answer, strict=True):
        info = answered.images.loc[key]
        task = task_of({"task": info.task, "scale_low": info.scale_low, "scale_high": info.scale_high})
        if reasoning := parse_response(answer, task.answer_format, task.scale).reasoning:
            found[key] = reasoning
    return found


def other_images(keys: Sequence[str], seed: int) -> dict[str, str]:
    """Assign another image to each image. A random cycle through all of them ensures that no image gets itself.

    Args:
        keys: keys of at least two images.
        seed: seed of the cycle.
    """
    order = np.random.default_rng(seed).permutation(len(keys))
    return {keys[int(a)]: keys[int(b)] for a, b in zip(order, np.roll(order, 1), strict=True)}


def conditions(answered: Sequence[Answered]) -> dict[str, dict[str, Any]]:
    """Return the experiments by name: whether the model sees the image, who wrote the text, and about which image.

    With several models, each model is also given the texts of the others without the image.
    """
    found = {
        IMAGE_AND_TEXT: {"image": True, "writer": 0, "crossed": False},
        TEXT_ALONE: {"image": False, "writer": 0, "crossed": False},
        CROSSED: {"image": True, "writer": 0, "crossed": True},
    }
    for step in range(1, len(answered)):
        ending = "the other model's text alone" if len(answered) == 2 else f"text alone of the model {step} further on"
        found[ending] = {"image": False, "writer": step, "crossed": False}
    return found


def read_forced(setup: Setup, answered: Sequence[Answered], ref: int, console: Console) -> pd.DataFrame:
    """Return the scores of one model, one column per condition, indexed by the image's key; NaN: no score.

    Results stored by an earlier start are not computed again. The column ``text_score CONDITION`` has the score that
    the writer of the text gave.
    """
    reader_of, names = answered[ref], conditions(answered)
    own = setup.record()
    config = {"model": reader_of.spec.identity(), "rows": own["data"]["rows_xxh128"], "seed": setup.seed,
              "writers": [one.spec.identity() for one in answered]}  # fmt: skip
    with Store(setup.out / "reading" / f"model_{ref + 1}", config) as store:
        todo = [one for one in setup.refs() if one.key not in store.keys]
        texts = [reasonings(answered[(ref + step) % len(answered)]) for step in range(len(answered))]
        other = other_images(sorted(texts[0]), setup.seed) if len(texts[0]) > 1 else {}
        shown = track(questions(todo), f"reading, {reader_of.name}", len(todo), console=console, transient=True)
        reader = None
        for asked in shown:
            reader = reader or Reader(reader_of.spec)
            store.add([{"key": asked.ref.key, "scores": dict(_scores(reader, asked, names, texts, other))}])
        wanted = {one.key for one in setup.refs()}
        records = {one["key"]: one["scores"] for one in read_store(store.folder) if one["key"] in wanted}
    table = pd.DataFrame.from_dict(records, orient="index", columns=list(names), dtype=float)
    for name, run_options in names.items():
        writer = answered[(ref + run_options["writer"]) % len(answered)].images.score
        keys = [other.get(key) for key in table.index] if run_options["crossed"] else table.index
        table[f"text_score {name}"] = writer.reindex(keys).to_numpy()
    return table


def _scores(
    reader: Reader, asked: Question, names: Mapping[str, Mapping[str, Any]], texts: Sequence[Mapping[str, str]],
    other: Mapping[str, str],
) -> Iterator[tuple[str, float | None]]:  # fmt: skip
    key, task = asked.ref.key, task_of(asked.ref.info)
    for name, run_options in names.items():
        reasoning = texts[run_options["writer"]].get(other.get(key, "") if run_options["crossed"] else key)
        if reasoning is None or not asked.images:
            continue
        image = asked.images[0] if run_options["image"] else None
        try:
            yield name, forced_score(reader, asked.messages, image, reasoning, task)
        except ForbiddenText:
            continue


def ridge_scores(setup: Setup, answered: Answered, console: Console) -> pd.DataFrame:
    """Predict the labels out of fold, from the text's words and from the image's tokens, by the image's key."""
    reader, texts = Reader(answered.spec), reasonings(answered)
    refs = [ref for ref in setup.refs() if ref.key in texts]
    vectors, keys = [], []
    answers = answered.answers[answered.answers["sample"] == 0].set_index("key").answer
    for asked in track(questions(refs), f"features, {answered.name}", len(refs), console=console, transient=True):
        task = task_of(asked.ref.info)
        try:
            answer = answers[asked.ref.key]
            if not asked.images:
                continue
            read = reader.read(asked.messages, asked.images, answer, task.answer_format, task.scale)
        except ForbiddenText:
            continue
        if read:
            keys.append(asked.ref.key)
            vectors.append(token_features(reader, read)["visual"])
    target = answered.images.target.loc[keys].to_numpy()
    found = {
        RIDGE_TEXT: ridge_on_texts([texts[key] for key in keys], target, setup.seed),
        RIDGE_VISUAL: ridge_predictions(np.array(vectors).reshape(len(keys), -1), target, setup.seed),
    }
    return pd.DataFrame(found, index=keys)


def compare(answered: Answered, scores: pd.DataFrame, resamples: int) -> list[dict[str, Any]]:
    """Compare every path to a score with the labels, over the images for which all paths give a score.

    Returns:
        One entry per path: ``name``, ``images``, ``plcc`` and ``srcc`` with the labels, ``srcc_with_text`` (with the
        score that the text's writer gave; not for ridge regressions), and ``difference`` (its SRCC minus the model's
        own).
    """
    paths = [name for name in map(str, scores) if not name.startswith("text_score ")]
    common = scores[paths].dropna().index.intersection(answered.images.index[answered.images.score.notna()])
    target = answered.images.target.loc[common].to_numpy()
    own = answered.images.score.loc[common].to_numpy()
    found = [{"name": "the model itself", "images": len(common), **agreement(own, target, resamples)}]
    for name in paths:
        mine = scores.loc[common, name].to_numpy()
        one = {"name": name, "images": len(common), **agreement(mine, target, resamples)}
        apart = paired_difference(mine, own, target, "srcc", resamples)
        one["difference"] = {"value": apart.difference, "low": apart.low, "high": apart.high, "p": apart.p}
        if f"text_score {name}" in scores:
            of_text = scores.loc[common, f"text_score {name}"].to_numpy()
            known = np.isfinite(of_text)
            one["srcc_with_text"] = correlations(mine[known], of_text[known])["srcc"]
        found.append(one)
    return found


def find_text_only(setup: Setup, console: Console) -> Finding:
    """Ask every model, make it score from its texts again, fit the regressions, and write the page.

    Raises:
        ValueError: a model's weights are not available locally, or too few answers have reasoning.
    """
    check_readable(setup.specs)
    answered = ask_all(setup, Sampling(max_tokens=setup.max_tokens), console)
    found = {}
    for ref, one in enumerate(answered):
        scores = read_forced(setup, answered, ref, console).join(ridge_scores(setup, one, console), how="outer")
        texts = reasonings(one)
        found[one.name] = {
            "paths": compare(one, scores, setup.resamples),
            "images": len(one.images),
            "texts_with_a_number": float(np.mean([has_number(text) for text in texts.values()])),
        }
    finding = Finding(
        name="text-only",
        title="How much of the score is in the text?",
        question="Every path from an image to a score, on the same images: the model itself; the score that it writes"
        " after its own reasoning without the image, and after the reasoning about another image; and ridge regressions"
        " on the words of the reasoning and on the image's tokens, fitted to the labels of other images.",
        found=[_sentence(name, one) for name, one in found.items()],
        tables=[_table(name, one) for name, one in found.items()],
        numbers={"models": found},
        record=setup.record(),
        figures={"": draw(found)},
        reading=READING,
    )
    write_finding(setup.out, finding, console)
    return finding


READING = (
    "If the text alone leads to nearly the same SRCC as image and text, the score needs nothing from the image"
    " that the text does not say. It does not follow that reasoning helps: a model may score as well from the"
    " image without it (omniq findings no-reasoning).",
    "With the reasoning about another image, a model follows the text if its SRCC with the text's score is near"
    " 1; it follows the image if it keeps its SRCC with the label.",
    "A text that names the score gives it away. The table's title says how many texts contain a number; the ridge"
    " regression on words does not see numbers, but the model does.",
    "The regressions are fitted to labels of this data set, and the model perhaps was not. So compare the two"
    " regressions with one another, text against image, rather than with the model.",
    "Only images that every path scores are compared. Brackets are 95% bootstrap intervals over them; a ridge's"
    " interval does not cover the randomness of its folds.",
)


def _sentence(name: str, found: dict[str, Any]) -> str:
    srcc = {one["name"]: one["srcc"] for one in found["paths"]}
    return (
        f"{name}: SRCC {cell(srcc['the model itself'])} from image and reasoning, {cell(srcc[TEXT_ALONE])} from"
        " its own text"
        f" alone; ridge on words {cell(srcc[RIDGE_TEXT])}, on the image's tokens {cell(srcc[RIDGE_VISUAL])}."
    )


def _table(name: str, found: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for one in found["paths"]:
        apart = [cell(one["difference"], "+.3f"), number(one["difference"]["p"])] if "difference" in one else ["-", "-"]
        rows.append([one["name"], cell(one["plcc"]), cell(one["srcc"]), *apart, number(one.get("srcc_with_text"))])
    columns = ["path", "PLCC", "SRCC", "SRCC, minus the model's own", "p", "SRCC with the text's score"]
    share = found["texts_with_a_number"]
    title = f"{name}: {found['paths'][0]['images']} of {found['images']} images; {share:.0%} of the texts hold a number"
    return table(title, columns, rows)


def draw(found: Mapping[str, dict[str, Any]]) -> Figure:
    """Draw the SRCC of every path with its interval, one panel per model."""
    most = max(len(one["paths"]) for one in found.values())
    figure, axes = new_figure(len(found) * (0.22 * most + 0.5), len(found), 1, sharex=True)
    for axis, (name, one) in zip(axes[:, 0], found.items(), strict=True):
        for ref, path in enumerate(one["paths"]):
            colour, value = COLOURS[2 if path["name"].startswith("ridge") else ref > 0], path["srcc"]
            if value["low"] is not None:
                axis.plot([value["low"], value["high"]], [ref, ref], color=colour, linewidth=1.2)
            if value["value"] is not None:
                axis.plot(
                    value["value"], ref, "s" if path["name"].startswith("ridge") else "o", color=colour, markersize=4
                )
        axis.set_yticks(range(len(one["paths"])), [path["name"] for path in one["paths"]], fontsize=6.5)
        axis.invert_yaxis()
        axis.grid(axis="x", alpha=0.3)
        label(axis, name)
    label(axes[-1, 0], list(found)[-1], "SRCC with the labels")
    return figure
