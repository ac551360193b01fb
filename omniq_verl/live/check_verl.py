"""The live check: answer rows of the data with the run's rollout engine and compare with its trainer.

The run's own parts are measured, after they have started and before the first step.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.dataset.rl_dataset import RLHFDataset

from omniq_verl.generation.chat_inputs import banned_tokens
from omniq_verl.live.conclusions import (
    Measured,
    answers_finding,
    image_findings,
    log_prob_finding,
    prompt_finding,
    reward_finding,
    rollout_finding,
    sleep_finding,
    token_finding,
    vision_finding,
)
from omniq_verl.live.findings import LIMITS, Finding, LiveReport
from omniq_verl.live.prompts import scoring_prompts
from omniq_verl.live.rollouts_verl import Rollout, Rollouts

_ROWS, _ANSWERS = 10, 2
_STRENGTHS = (0.1, 0.4, 0.8)
"""Strengths of the change to the vision tower, tried in turn until the answers change."""


class LiveCheck:
    """Checks a trainer whose engines have started and whose rollout engine is awake. Restores both afterwards."""

    def __init__(self, trainer: PPOTrainer):
        self._trainer = trainer
        # Every recipe's class of rows inherits from it; verl declares more.
        self._dataset: RLHFDataset = trainer.train_dataset  # pyright: ignore[reportAttributeAccessIssue]
        self._rows = _spread(len(self._dataset), _ROWS)
        settings = trainer.config.actor_rollout_ref
        self._dtype = _least_precise(settings.rollout.dtype, settings.actor.fsdp_config.mixed_precision)
        share = len(self._banned()) / len(trainer.tokenizer)
        self._limits = replace(LIMITS[self._dtype], shift=-math.log1p(-share))

    def run(self) -> LiveReport:
        """Measure everything."""
        began = time.monotonic()
        findings = list(self._findings())
        conditions = {
            "model": str(self._trainer.config.actor_rollout_ref.model.path),
            "step": self._trainer.global_steps,
            "dtype": self._dtype,
            "rows": len(self._rows),
            "answers_per_row": _ANSWERS,
        }
        return LiveReport(findings, round(time.monotonic() - began, 1), conditions)

    def _findings(self) -> Sequence[Finding]:
        first = {name: Rollouts(self._trainer, rows, _ANSWERS) for name, rows in self._questions().items()}
        own = first["own"]
        answers = [answer for one in first.values() for answer in one.answers]
        failures = [failure for one in first.values() for failure in one.failures]
        sampled = [token for failure in failures for token in failure.forbidden]
        expected = sum(one.expected for one in first.values())
        found = [
            rollout_finding(len(answers), expected, [f"row {one.row}: {one.error}" for one in failures]),
            token_finding(answers, sampled, self._banned()),
            prompt_finding(*self._prompts(own)),
            *self._reward_findings(own),
        ]
        if not own.answers:
            return found
        self._sleep()
        measured = {name: _measure(one, one.actor_log_probs()) for name, one in first.items()}
        blank = own.actor_log_probs_with(first["blank"], _pairs(own, first["blank"]))
        effect = _effect(own, measured["own"].actor, blank, _pairs(own, first["blank"])) if blank else None
        found.append(log_prob_finding(measured["own"], self._limits))
        found += image_findings(measured, effect, self._limits)
        found += self._after_updates(own, measured["own"])
        for one in first.values():
            one.clear()
        return found

    def _questions(self) -> dict[str, list[dict[str, Any]]]:
        """The rows unchanged, with a blank image, and with the image of the next row."""
        images = [_images(self._load(i)) for i in self._rows]
        variants = {"own": [self._load(i) for i in self._rows]}
        if any(images):
            blank = [[_blank(image) for image in of_row] for of_row in images]
            variants["blank"] = [_with_images(self._load(i), one) for i, one in zip(self._rows, blank, strict=True)]
            shifted = [*images[1:], images[0]]
            if all(len(a) == len(b) for a, b in zip(images, shifted, strict=True)) and len(images) > 1:
                variants["other"] = [
                    _with_images(self._load(i), image) for i, image in zip(self._rows, shifted, strict=True)
                ]
        return variants

    def _load(self, index: int) -> dict[str, Any]:
        return self._trainer.train_dataset[index]

    def _banned(self) -> dict[int, str]:
        processor = self._trainer.processor or self._trainer.tokenizer
        return {number: token for token, number in banned_tokens(processor).items()}

    def _prompts(self, own: Rollouts) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """Token ids of each question: in the rollouts, and when scoring with the same model folder."""
        dataset, asked = self._dataset, {one.question: one.prompt for one in own.answers}
        rows = [dataset.dataframe[self._rows[number]] for number in sorted(asked)]
        model = self._trainer.config.actor_rollout_ref.model.path
        expected = scoring_prompts(model, rows, dataset.prompt_key, dataset.image_key)
        return [asked[number] for number in sorted(asked)], expected

    def _reward_findings(self, own: Rollouts) -> list[Finding]:
        compute = get_custom_reward_fn(self._trainer.config)
        if compute is None:
            return []
        pairs = []
        for answer in own.answers:
            row = self._load(self._rows[answer.question])
            text = self._trainer.tokenizer.decode(answer.response, skip_special_tokens=True)
            result = compute(
                data_source=row["data_source"],
                solution_str=text,
                ground_truth=row["reward_model"]["ground_truth"],
                extra_info=row["extra_info"],
            )
            pairs.append((answer, result, json.dumps(text)))
        return [reward_finding(pairs), answers_finding(pairs)]

    def _after_updates(self, own: Rollouts, before: Measured) -> list[Finding]:
        """Change the vision tower, send it to the rollout engine, and restore it."""
        workers, found, effect = self._trainer.actor_rollout_wg, [], 0.0
        for strength in _STRENGTHS:
            changed = sum(workers.perturb_vision(strength))
            if not changed:
                self._wake()
                return [*found, *self._again(own, before)]
            effect = _mean_difference(own.actor_log_probs(), before.actor)
            if effect > 10 * self._limits.mean:
                break
            if strength != _STRENGTHS[-1]:
                workers.restore_vision()
        self._wake()
        after = Rollouts(self._trainer, self._questions()["own"], _ANSWERS)
        self._sleep()
        found.append(vision_finding(_measure(after, after.actor_log_probs()), effect, self._limits))
        after.clear()
        workers.restore_vision()
        self._wake()
        return [*found, *self._again(own, before)]

    def _again(self, own: Rollouts, before: Measured) -> list[Finding]:
        """Ask the same questions again with the initial weights."""
        again = Rollouts(self._trainer, self._questions()["own"], _ANSWERS)
        finding = sleep_finding(own.answers, again.answers, self._limits)
        again.clear()
        return [finding]

    def _sleep(self) -> None:
        self._trainer.checkpoint_manager.sleep_replicas()  # pyright: ignore[reportUnusedCoroutine]  verl waits for it

    def _wake(self) -> None:
        # verl's decorator waits for it.
        self._trainer.checkpoint_manager.update_weights(  # pyright: ignore[reportUnusedCoroutine]
            self._trainer.global_steps
        )


def _spread(rows: int, wanted: int) -> list[int]:
    """Indices of rows, evenly spaced."""
    return sorted({i * rows // wanted for i in range(wanted)}) if rows else []


def _least_precise(rollout: str, mixed_precision: Any) -> str:
    names = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16", "auto": "bfloat16"}
    trained = (mixed_precision or {}).get("param_dtype", "bf16")
    dtypes = {names.get(str(name), str(name)) for name in (rollout, trained)}
    return next((name for name in ("bfloat16", "float16") if name in dtypes), "float32")


def _images(row: dict[str, Any]) -> list[Image.Image]:
    parts = [part for turn in row["raw_prompt"] if isinstance(turn["content"], list) for part in turn["content"]]
    return [part["image"] for part in parts if part["type"] == "image"]


def _with_images(row: dict[str, Any], images: Sequence[Any]) -> dict[str, Any]:
    """The row with other images. The row is changed in place, so load it for this purpose only."""
    left = iter(images)
    for turn in row["raw_prompt"]:
        if isinstance(turn["content"], list):
            turn["content"] = [
                {"type": "image", "image": next(left)} if part["type"] == "image" else part for part in turn["content"]
            ]
    return row


def _blank(image: Any) -> Image.Image:
    from qwen_vl_utils import fetch_image

    size = image.size if isinstance(image, Image.Image) else fetch_image({"image": image}).size
    return Image.new("RGB", size, (127, 127, 127))


def _measure(rollouts: Rollouts, actor: list[np.ndarray]) -> Measured:
    return Measured([one.log_probs for one in rollouts.answers], actor)


def _pairs(own: Rollouts, others: Rollouts) -> list[tuple[Rollout, Rollout]]:
    """Answers to the same question with different images of the same size, that is, with equally long prompts."""
    by_question = {one.question: one for one in others.answers}
    return [
        (answer, by_question[answer.question])
        for answer in own.answers
        if answer.question in by_question and len(by_question[answer.question].prompt) == len(answer.prompt)
    ]


def _effect(
    own: Rollouts, actor: Sequence[np.ndarray], blank: list[np.ndarray], pairs: list[tuple[Rollout, Rollout]]
) -> float:
    of_key = {answer.key: found for answer, found in zip(own.answers, actor, strict=True)}
    return _mean_difference([of_key[answer.key] for answer, _ in pairs], blank)


def _mean_difference(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    return float(np.abs(np.concatenate(first) - np.concatenate(second)).mean())
