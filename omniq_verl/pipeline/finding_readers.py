"""Figures out of the folders that ``omniq findings`` leaves: one line each, before and after GRPO."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omniq_verl.pipeline.summary import value_of

MODELS = ("after SFT", "after GRPO")
"""Columns, in the order in which the models are given."""
Numbers = Callable[[Mapping[str, Any]], Sequence[float]]
"""Content of a finding's JSON -> one figure a column; NaN where there is none."""


def answered(folder: Path) -> dict[str, float]:
    """Figures of ``omniq eval`` on the one set of the photographs."""
    (found,) = json.loads((folder / "metrics.json").read_text())["sets"].values()
    numbers = {title: value_of(found[title.lower()]) for title in ("PLCC", "SRCC")}
    return {**numbers, "MAE": _number(found["mae"]), "parsable": found["scored"] / found["images"]}


def read_figure(place: Path) -> dict[str, float]:
    """The figure ``FIGURES`` lists under the last two parts of ``place``, e.g. ``seed0/attention/reasoning``."""
    folder = place.parent.name
    name = folder.removesuffix("_direct")
    numbers = json.loads((place.parent / f"{name}.json").read_text())
    _, figure = FIGURES[f"{folder}/{place.name}"]
    return dict(zip(MODELS, figure(numbers), strict=True))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _by_model(*keys: str) -> Numbers:
    """The figure under these keys of each model's entry."""
    return lambda numbers: [_number(_under(model, keys)) for model in numbers["models"].values()]


def _under(entry: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        entry = entry[key]
    return entry


def _path(name: str, *keys: str) -> Numbers:
    """A figure of the path of this name from image to score."""

    def figure(model: Mapping[str, Any]) -> float:
        (found,) = [path for path in model["paths"] if path["name"] == name]
        return _number(_under(found, keys))

    return lambda numbers: [figure(model) for model in numbers["models"].values()]


def _last_k(*keys: str) -> Numbers:
    """A figure of the mean of all sampled answers."""
    return lambda numbers: [_number(_under(model["sampled"][-1], keys)) for model in numbers["models"].values()]


def _above_chance(space: str) -> Numbers:
    def figure(model: Mapping[str, Any]) -> float:
        probe = model[space]["probe"]
        return value_of(probe) - probe["chance"]

    return lambda numbers: [figure(model) for model in numbers["models"].values()]


def _mode(*keys: str) -> Numbers:
    """A figure of ``no-reasoning``, of one row for each model."""
    return lambda numbers: [_number(_under(row, keys)) for row in numbers["rows"]]


def _cost(mode: str, key: str) -> Numbers:
    return lambda numbers: [_number(one[key]) for name, one in numbers["costs"].items() if name.endswith(f", {mode}")]


def _swapped(numbers: Mapping[str, Any]) -> Sequence[float]:
    """SRCC under the other tower minus the own; the model before GRPO gives the tower."""
    (pair,) = numbers["pairs"]
    return [math.nan, _number(pair["srcc"]["difference"])]


def _change(name: str) -> Numbers:
    return lambda numbers: [math.nan, _number(numbers["change"][name]["value"])]


_EXPECTATION = "SRCC of the expectation behind a forced answer"
FIGURES: dict[str, tuple[str, Numbers]] = {
    "attention/reasoning": (
        "attention: reasoning's part of reasoning and image",
        _by_model("reasoning_of_reasoning_and_image", "value"),
    ),
    "attention/prompt": ("attention: share of the prompt", _by_model("share", "prompt", "value")),
    "swap/difference": ("swap: SRCC under the tower before GRPO, minus its own", _swapped),
    "text_only/itself": ("text-only: SRCC from image and reasoning", _path("the model itself", "srcc", "value")),
    "text_only/alone": ("text-only: SRCC from its own text alone", _path("own text alone", "srcc", "value")),
    "text_only/foreign": (
        "text-only: SRCC with another image's text",
        _path("image and another image's text", "srcc", "value"),
    ),
    "text_only/follows": (
        "text-only: the same, SRCC with that text's score",
        _path("image and another image's text", "srcc_with_text"),
    ),
    "text_only/words": (
        "text-only: SRCC of ridge on the text's words",
        _path("ridge on the text's words", "srcc", "value"),
    ),
    "text_only/image": (
        "text-only: SRCC of ridge on the image's tokens",
        _path("ridge on the image's tokens", "srcc", "value"),
    ),
    "domain_gap/visual": ("domain-gap: probe above chance, visual tokens of the tower", _above_chance("visual")),
    "domain_gap/visual_late": (
        "domain-gap: the same, visual tokens in the language model",
        _above_chance("visual_late"),
    ),
    "domain_gap/reasoning": ("domain-gap: the same, reasoning tokens", _above_chance("reasoning")),
    "self_consistency/greedy": ("self-consistency: SRCC of a greedy answer", _by_model("greedy", "srcc", "value")),
    "self_consistency/mean": ("self-consistency: SRCC of the mean of 4 answers", _last_k("srcc", "value")),
    "self_consistency/gain": ("self-consistency: the same minus greedy", _last_k("gain", "value")),
    "gate/entropy": ("gate: share of entropy in tokens that pass", _by_model("entropy_passed")),
    "gate/output": (
        "gate: correlation of entropy and gradient, output layer",
        _by_model("entropy_and_gradient", "output_layer", "value"),
    ),
    "gate/all": (
        "gate: the same, all weights",
        _by_model("entropy_and_gradient", "all_weights", "value"),
    ),
    "no_reasoning/reason": ("no-reasoning, trained with it: SRCC with it", _mode("reason", "srcc", "value")),
    "no_reasoning/direct": ("no-reasoning, trained with it: SRCC without it", _mode("direct", "srcc", "value")),
    "no_reasoning/outside": (
        "no-reasoning, trained with it: probability of no number",
        _cost("without reasoning", "outside"),
    ),
    "no_reasoning_direct/reason": (
        "no-reasoning, trained without it: SRCC of the written number",
        _mode("reason", "srcc", "value"),
    ),
    "no_reasoning_direct/direct": (
        f"no-reasoning, trained without it: {_EXPECTATION}",
        _mode("direct", "srcc", "value"),
    ),
    "reward_hacking/reward": ("reward-hacking: reward, last step minus first", _change("reward")),
    "reward_hacking/srcc": ("reward-hacking: SRCC, last step minus first", _change("srcc")),
}
"""Rows of the table: folder of the finding and name of the figure -> title, and where the figure stands."""
