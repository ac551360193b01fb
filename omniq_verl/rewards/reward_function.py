"""The reward function that verl calls for every response, and its settings."""

import json
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Any

from omniq_verl.object_reference import FORM, is_reference
from omniq_verl.rewards.degradation import canonical_class, canonical_level, degradation_reward, stated_class
from omniq_verl.rewards.format import format_reward
from omniq_verl.rewards.gaussian import gaussian_reward
from omniq_verl.rewards.heads import judge_heads, parse_heads
from omniq_verl.rewards.outside import SETTING, ScoreReward, called, open_reward
from omniq_verl.rewards.parsing import Parsed, Status, parse_response
from omniq_verl.rewards.threshold import threshold_reward
from omniq_verl.tasks import Task, read_truth, shown, task_number, task_of

STATUS_NUMBERS = {status: number for number, status in enumerate(Status)}
_NOT_APPLICABLE = math.nan


@dataclass(frozen=True)
class RewardSettings:
    """Settings of the reward: ``reward.custom_reward_function.reward_kwargs`` of a recipe.

    The reward is ``accuracy_weight * accuracy + format_weight * format``. ``sources`` overrides any setting by the name
    of the data source, e.g. ``{"ava": {"sigma": 1.5}}``.

    Raises:
        TypeError: an unknown setting.
        ValueError: a value outside its range.
    """

    score_reward: str = "gaussian"
    """``gaussian`` (OmniQuality-R sec. 3.3), ``threshold`` (Q-Insight sec. 3.3), or your own
    ``package.module:function``: ``function(pred, target, **score_settings)`` returns a number from 0 to 1
    (``omniq_verl.rewards.outside``)."""
    sigma: float = 0.8
    """Width of the Gaussian, in units of the scale (OmniQuality-R sec. 4.1)."""
    epsilon: float = 0.35
    """Threshold, in units of the scale (Q-Insight sec. 4.1)."""
    accuracy_weight: float = 1.0
    format_weight: float = 0.0
    """0: "Gaussian reward only" (OmniQuality-R); Q-Insight adds the format reward with weight 1."""
    class_weight: float = 0.25
    level_weight: float = 0.75
    score_settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Further arguments of a custom score reward, by name."""

    def __post_init__(self) -> None:
        if self.score_reward not in _SCORE_REWARDS and not is_reference(self.score_reward):
            known = ", ".join(map(repr, _SCORE_REWARDS))
            raise ValueError(f"score_reward must be {known} or {FORM}, got {self.score_reward!r}")
        if not isinstance(self.score_settings, Mapping):
            raise ValueError(f"score_settings must be a mapping from names to values, got {self.score_settings!r}")
        if self.score_settings and self.score_reward in _SCORE_REWARDS:
            raise ValueError(f"score_settings has no effect with score_reward={self.score_reward}. Fix: remove it")
        for name in ("sigma", "epsilon", "accuracy_weight", "format_weight", "class_weight", "level_weight"):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{name} must be a number, got {value!r}")
        if not (self.sigma > 0 and self.epsilon > 0):
            raise ValueError(f"sigma and epsilon must be positive, got {self.sigma} and {self.epsilon}")
        if math.isinf(self.sigma):
            raise ValueError("sigma must be finite; otherwise every answer would be correct")
        weights = (self.accuracy_weight, self.format_weight, self.class_weight, self.level_weight)
        if not all(math.isfinite(weight) for weight in weights):
            raise ValueError(f"weights must be finite, got {weights}")
        self.score_function  # noqa: B018  fail here if the function is missing, not at the first answer

    @cached_property
    def score_function(self) -> ScoreReward:
        """Return the function from a predicted score and its label to the reward, 0 to 1."""
        if self.score_reward in _SCORE_REWARDS:
            return _SCORE_REWARDS[self.score_reward](self)
        function = open_reward(self.score_reward, self.score_settings)
        return partial(called, f"{SETTING}={self.score_reward}", function)

    @staticmethod
    def for_source(
        data_source: str | None, sources: Mapping[str, Mapping[str, Any]] | None = None, **settings: Any
    ) -> "RewardSettings":
        """Return the settings of one data source; None: those that apply to all sources."""
        own = {} if data_source is None else _plain(sources).get(data_source, {})
        if not isinstance(own, Mapping):
            raise ValueError(f"sources.{data_source} must be a mapping from settings to values, got {own!r}")
        chosen = {**settings, **own}
        of_score = _plain(chosen.pop("score_settings", None))
        try:
            return _checked(tuple(chosen.items()), json.dumps(of_score, sort_keys=True) if of_score else "{}")
        except TypeError:
            for name, value in chosen.items():
                if not isinstance(value, Hashable):
                    raise ValueError(f"{name} must be a single value, got {value!r}") from None
            raise


_SCORE_REWARDS: dict[str, Callable[[RewardSettings], ScoreReward]] = {
    "gaussian": lambda settings: partial(gaussian_reward, sigma=settings.sigma),
    "threshold": lambda settings: partial(threshold_reward, epsilon=settings.epsilon),
}
_plain_settings: dict[int, tuple[Any, dict[str, Any]]] = {}


def _plain(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Convert to a plain dict: verl passes OmegaConf objects, whose look-ups take longer than the rest of a reward."""
    if settings is None or type(settings) is dict:
        return settings or {}
    if id(settings) not in _plain_settings:
        # Keep a reference to the original, so that its id is not reused.
        _plain_settings[id(settings)] = (settings, _unwrapped(settings))
    return _plain_settings[id(settings)][1]


def _unwrapped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _unwrapped(one) for name, one in value.items()}
    return [_unwrapped(one) for one in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


@lru_cache(maxsize=1024)  # called for every response, but with few distinct settings
def _checked(settings: tuple[tuple[str, Any], ...], score_settings: str = "{}") -> RewardSettings:
    return RewardSettings(**dict(settings), score_settings=json.loads(score_settings))


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any],
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    **settings: Any,
) -> dict[str, float]:
    """Compute the reward of one response, with its parts.

    Args:
        data_source: name of the data set, which selects the settings in ``sources``.
        solution_str: the response's text.
        ground_truth: ``{"score": s}``, ``{"scores": {head: s}}``, ``{"choice": c}`` or
            ``{"distortion_class": c, "severity": s}``, as JSON; ``omniq_verl.data`` writes it.
        extra_info: the row's ``extra_info``; its ``task`` names the task.
        reward_router_address: passed by verl if there is a reward model; not used.
        reward_model_tokenizer: likewise.
        **settings: those of ``RewardSettings``, and ``sources``.

    Returns:
        The same numeric keys for every task, none named ``reward``: ``score`` (the reward for training), ``accuracy``
        (0 if nothing could be parsed), ``format`` and ``parsed`` (0 or 1), ``status`` (its number in ``Status``) and
        ``task`` (``omniq_verl.tasks.task_number``), ``pred`` and ``target`` (scores), ``level_right`` (0 or 1; 0 if
        there is no level), ``level_asked`` (0 for comparisons and for images without distortion, which have no level,
        otherwise 1), and ``class_right`` and ``choice_right`` (0 or 1). NaN means "none": a score that could not be
        parsed, or the class or choice of a task that asks for none. A task that asks for several numbers adds
        ``head/<name>/pred``, ``head/<name>/target`` and ``head/<name>/accuracy`` for each.

    Raises:
        ValueError: the row names no known task, its label does not fit the task, or the response is not text. The
            message names the row's data source, index and id. Such an error stops training, so ``omniq doctor`` and the
            trainer check every row before a run.
    """
    chosen = RewardSettings.for_source(data_source, **settings)
    task, truth = _asked(data_source, solution_str, ground_truth, extra_info)
    parsed = (
        parse_heads(solution_str, task.heads, task.score_scale)
        if task.heads
        else parse_response(solution_str, task.answer_format, task.scale)
    )
    form = format_reward(solution_str, task.answer_format, task.reasoning)
    judged = _JUDGES[task.asks_for](parsed, truth, task, chosen)
    return {
        **_DEFAULTS,
        "score": chosen.accuracy_weight * judged["accuracy"] + chosen.format_weight * form,
        "format": form,
        "parsed": float(parsed.ok),
        "status": float(STATUS_NUMBERS[parsed.status]),
        "task": float(task_number(task.name)),
        **judged,
    }


def _asked(
    data_source: str, response: object, ground_truth: object, extra_info: Mapping[str, Any] | None
) -> tuple[Task, dict[str, Any]]:
    """Return the row's task and label, or raise an error that identifies the row."""
    try:
        task = task_of(extra_info)
        truth = read_truth(task, ground_truth)
    except ValueError as error:
        raise ValueError(f"{_failed(data_source, extra_info)}: {error}. `omniq doctor` names every such row") from None
    if not isinstance(response, str):
        what = f"its response is {shown(response)}, not a str. Fix: pass the decoded text"
        raise ValueError(f"{_failed(data_source, extra_info)}: {what}")
    return task, truth


def _failed(data_source: str, extra_info: object) -> str:
    info = extra_info if isinstance(extra_info, Mapping) else {}
    row = ", ".join(f"extra_info.{name} {shown(info[name])}" for name in ("index", "id") if name in info)
    return f"a row of data_source {data_source!r} ({row or 'without extra_info.index and id'}) cannot be rewarded"


_DEFAULTS = {
    "accuracy": 0.0,
    "pred": _NOT_APPLICABLE,
    "target": _NOT_APPLICABLE,
    "level_right": 0.0,
    "level_asked": 0.0,
    "class_right": _NOT_APPLICABLE,
    "choice_right": _NOT_APPLICABLE,
}
"""Defaults for parts that a judge does not set, so that the keys are the same for every task."""


def _judge_score(parsed: Parsed, truth: Mapping[str, Any], task: Task, settings: RewardSettings) -> dict[str, float]:
    target = float(truth["score"])
    judged = {"accuracy": 0.0, "target": target, "level_asked": 1.0}
    if parsed.score is None:
        return judged
    judged["accuracy"] = settings.score_function(parsed.score, target)
    judged["pred"] = parsed.score
    scale = task.score_scale
    judged["level_right"] = float(scale.level(parsed.score) == scale.level(target))
    return judged


def _judge_degradation(
    parsed: Parsed, truth: Mapping[str, Any], _task: Task, settings: RewardSettings
) -> dict[str, float]:
    true = truth["distortion_class"], truth["severity"]
    asked = float(canonical_class(true[0]) is not None)
    judged = {"accuracy": 0.0, "class_right": 0.0, "level_asked": asked}
    if parsed.fields is None:
        return judged
    answer = stated_class(parsed.fields), parsed.fields.get("severity")
    judged["accuracy"] = degradation_reward(*answer, *true, settings.class_weight, settings.level_weight)
    judged["class_right"] = float(canonical_class(answer[0]) == canonical_class(true[0]))
    judged["level_right"] = asked * judged["class_right"] * (canonical_level(answer[1]) == canonical_level(true[1]))
    return judged


def _judge_choice(parsed: Parsed, truth: Mapping[str, Any], _task: Task, _settings: RewardSettings) -> dict[str, float]:
    """Reward a choice with all or nothing, as in the code of Q-Insight's authors (qinsight_comparison.py)."""
    right = float(parsed.choice == truth["choice"])
    return {"accuracy": right, "choice_right": right}


def _judge_scores(parsed: Parsed, truth: Mapping[str, Any], task: Task, settings: RewardSettings) -> dict[str, float]:
    return judge_heads(parsed.fields, truth["scores"], task.heads, settings.score_function)


_JUDGES = {"score": _judge_score, "scores": _judge_scores, "choice": _judge_choice, "degradation": _judge_degradation}
