"""Pure functions from measurements to findings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from omniq_verl.live.findings import SKIPPED, Agreement, Finding, Limits, agreement, finding

_WRONG_GRADIENT = "GRPO would train on probabilities that are not those of the rollouts"
_ENGINE = "load the rollout engine with load_format=auto, and use the pinned versions of vLLM, verl and transformers"


class Answered(Protocol):
    """The known facts about one answer; see ``rollouts_verl.Rollout``."""

    @property
    def question(self) -> int: ...

    @property
    def session(self) -> int: ...

    @property
    def response(self) -> tuple[int, ...]: ...

    @property
    def log_probs(self) -> np.ndarray: ...

    @property
    def reward(self) -> float: ...

    @property
    def parts(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Measured:
    """Log-probabilities of answers, ``[T]`` each, from rollout engine and actor."""

    rollout: Sequence[np.ndarray]
    actor: Sequence[np.ndarray]

    @property
    def agreement(self) -> Agreement:
        """How well rollout engine and actor agree."""
        return agreement(self.rollout, self.actor)


def rollout_finding(answers: int, expected: int, errors: Sequence[str]) -> Finding:
    """Whether every rollout ended with an answer.

    Args:
        answers: number of answers.
        expected: number of rollouts.
        errors: why the others failed.
    """
    reasons = f": {errors[0]}" if errors else ""
    return finding(
        "rollouts",
        answers == expected,
        f"{answers} of {expected} rollouts gave an answer{reasons}",
        "Rows whose rollouts fail are not trained on.",
        "correct or remove these rows; failed_rollouts.jsonl names them all",
    )


def token_finding(answers: Sequence[Answered], sampled: Sequence[int], forbidden: Mapping[int, str]) -> Finding:
    """Whether tokens were sampled that an answer must not contain.

    Args:
        answers: all answers of the check.
        sampled: forbidden tokens from rollouts that failed because of them.
        forbidden: forbidden token ids and their tokens.
    """
    found = {*sampled, *(token for one in answers for token in set(one.response) & forbidden.keys())}
    names = ", ".join(sorted(forbidden.get(token, str(token)) for token in found))
    tokens = sum(len(one.response) for one in answers)
    return finding(
        "special tokens",
        not found,
        f"the rollouts sampled {names}" if found else f"none in {tokens} sampled tokens",
        "An answer with an image placeholder cannot be trained on, and other special tokens can fake a turn.",
        "use the agent loop omniq_seeded, which bans them (actor_rollout_ref.rollout.agent.default_agent_loop), and an"
        " engine that applies logit_bias",
    )


def prompt_finding(rollout: Sequence[tuple[int, ...]], scoring: Sequence[tuple[int, ...]]) -> Finding:
    """Whether training and scoring send the same tokens for a question."""
    same = sum(a == b for a, b in zip(rollout, scoring, strict=True))
    return finding(
        "prompts",
        same == len(scoring),
        f"{same} of {len(scoring)} prompts have the same tokens as in scoring",
        "The model would be trained on prompts that differ from those it is scored with later.",
        "remove custom_chat_template, data.apply_chat_template_kwargs and data.mm_processor_kwargs, or copy the model"
        " folder's own chat template and image processor again",
    )


def log_prob_finding(own: Measured, limits: Limits) -> Finding:
    """Whether rollout engine and trainer give the same log-probabilities."""
    found = own.agreement
    return finding(
        "log-probabilities",
        found.within(limits),
        f"{found} over {found.tokens} tokens; limits {_limits(limits)}",
        f"The rollout engine does not run the model that is trained: {_WRONG_GRADIENT}.",
        _ENGINE,
    )


def image_findings(measured: Mapping[str, Measured], effect: float | None, limits: Limits) -> list[Finding]:
    """Whether the image matters, and whether each question is answered about its own image.

    Args:
        measured: results for the unchanged rows (``own``), with a ``blank`` image, and with the image of another row
            (``other``).
        effect: mean change of the trained model's log-probabilities when the image becomes blank; None if not measured.
        limits: limits for the dtype.
    """
    if effect is None:
        return [Finding("image matters", SKIPPED, "the rows have no images")]
    noise = measured["own"].agreement.mean
    return [
        finding(
            "image matters",
            effect > 3 * noise and effect > 1e-6,
            f"a blank image changes the log-probabilities by {effect:.2g} on average; the two engines differ by"
            f" {noise:.2g}",
            "The answers do not depend on the image, or image features do not reach the model.",
            "check that the rows' images are the right ones and that the model folder has its vision tower; train the"
            " model to look at images (SFT) first",
        ),
        *(_own_image(name, measured[name].agreement, effect, limits) for name in measured),
    ]


_SHOWN = {"own": "its own image", "blank": "a blank image", "other": "the image of another row"}


def _own_image(name: str, found: Agreement, effect: float, limits: Limits) -> Finding:
    return finding(
        f"{_SHOWN[name]} is what the rollout engine sees",
        found.within(limits, effect),
        f"{found} over {found.tokens} tokens; a wrong image makes {effect:.2g}",
        "The rollout engine answers about a different image, or about none, than the trainer computes gradients for.",
        "turn off the engine's caches of images (engine_kwargs.vllm.mm_processor_cache_gb=0), and check that the agent"
        " loop passes image_data on",
    )


def vision_finding(after: Measured, effect: float, limits: Limits) -> Finding:
    """Whether a change of the vision tower reaches the rollouts.

    Args:
        after: results for the same questions, after the change was sent to the rollout engine.
        effect: mean change of the trained model's log-probabilities.
        limits: limits for the dtype.
    """
    found = after.agreement
    if not effect > 3 * limits.mean:
        measured = f"a changed vision tower changes log-probabilities by {effect:.2g} only"
        return Finding("vision update", SKIPPED, measured)
    return finding(
        "vision update",
        found.within(limits, effect),
        f"after a change that makes {effect:.2g}: {found} over {found.tokens} tokens",
        "The rollout engine answers with image features of old weights (vllm#44910, trl#7198), so training the"
        " vision tower would not change the rollouts.",
        "use the pinned versions of vLLM and verl, whose weight update clears the engine's cache of image features and"
        " sends the vision tower",
    )


def sleep_finding(before: Sequence[Answered], after: Sequence[Answered], limits: Limits) -> Finding:
    """Whether the engine gives its first answers again after it slept, woke up and got the same weights.

    Seeds are the same, so answers can differ only from the first token whose choice depended on rounding.
    """
    again = {(one.question, one.session): one for one in after}
    pairs = [(one, again[one.question, one.session]) for one in before if (one.question, one.session) in again]
    first, second = [], []
    for one, other in pairs:
        same = _common_length(one.response, other.response)
        first.append(one.log_probs[:same])
        second.append(other.log_probs[:same])
    found = agreement(first, second)
    total = sum(len(one.response) for one in before)
    return finding(
        "sleep and wake",
        len(pairs) == len(before) and found.within(limits) and found.tokens > total / 2,
        f"{found} over the {found.tokens} of {total} tokens before the first difference",
        "The rollout engine does not have the trainer's weights after waking up.",
        "set actor_rollout_ref.rollout.free_cache_engine=false, or use the pinned versions of vLLM and verl",
    )


def _common_length(one: Sequence[int], other: Sequence[int]) -> int:
    different = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(different, min(len(one), len(other)))


def reward_finding(pairs: Sequence[tuple[Answered, Any, str]]) -> Finding:
    """Whether the reward workers computed what the reward function returns when called directly.

    Args:
        pairs: an answer with its reward, the reward function's result for it, and its text.
    """
    wrong = [(answer, value, text) for answer, value, text in pairs if not _same_reward(answer, value)]
    detail = ""
    if wrong:
        answer, value, text = wrong[0]
        detail = f"; for {text[:80]} {answer.reward:g} instead of {_score(value):g}"
    return finding(
        "rewards",
        not wrong,
        f"{len(pairs) - len(wrong)} of {len(pairs)} rewards equal a direct call of compute_score{detail}",
        "The policy would be trained on rewards that differ from what the recipe describes.",
        "check reward.custom_reward_function and reward.reward_manager, and that all machines run the same code",
    )


def answers_finding(pairs: Sequence[tuple[Answered, Any, str]]) -> Finding:
    """Whether any of the answers can be parsed. Only for reward functions that report it (``parsed``)."""
    parsed = [value["parsed"] for _, value, _ in pairs if isinstance(value, Mapping) and "parsed" in value]
    if not parsed:
        return Finding("answers", SKIPPED, "the reward function does not report whether an answer could be parsed")
    examples = "; ".join(text[:60] for _, _, text in pairs[:2])
    return finding(
        "answers",
        any(parsed),
        f"{int(sum(parsed))} of {len(parsed)} answers could be parsed, for example {examples}",
        "If every answer gets the same reward, there is nothing to learn.",
        "start from a model that answers in the required format (SFT), and check its chat template",
    )


def _same_reward(answer: Answered, value: Any) -> bool:
    if not math.isclose(answer.reward, _score(value), rel_tol=1e-5, abs_tol=1e-6):
        return False
    parts = {key: number for key, number in value.items() if key in answer.parts} if isinstance(value, Mapping) else {}
    return all(_equal(answer.parts[key], number) for key, number in parts.items())


def _equal(one: Any, other: Any) -> bool:
    try:
        return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)
    except TypeError:
        return one == other


def _score(value: Any) -> float:
    return float(value["score"] if isinstance(value, Mapping) else value)


def _limits(limits: Limits) -> str:
    mean, largest = limits.mean + limits.shift, limits.largest + limits.shift
    return f"{limits.correlation}, {mean:.3g} and {largest:.3g}"
