"""Which rows carry the pixels of their image, and what stands in their place where they do not. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omniq_verl.object_reference import is_reference

GROUP_MANAGER = "omniq_verl.trainer.group_rollouts_verl.GroupAgentLoopManager"
"""The manager of agent loops that stores a group's pixels once, as recipes name it."""
MARKER = "omniq_pixels"
"""Key of a row's ``multi_modal_inputs`` under which the name of its group stands in place of the pixels."""
PIXELS = "pixel_values"
"""Name that processors, models and verl give to the pixels of images."""
_OF_IMAGES = {PIXELS, "image_grid_thw", "mm_token_type_ids", "attention_mask"}
"""What the processor of Qwen's models returns besides ``input_ids`` for text and images."""


def why_rows_carry_pixels(config: DictConfig) -> str | None:
    """Why each row of a run carries its pixels, as in verl; None where a group's pixels are stored once.

    Args:
        config: of the run.
    """
    strategies = {
        key: OmegaConf.select(config, f"actor_rollout_ref.{key}.strategy", default="fsdp") for key in ("actor", "ref")
    }
    for key, strategy in strategies.items():
        if strategy not in ("fsdp", "fsdp2"):
            return f"actor_rollout_ref.{key}.strategy is {strategy}, whose engine is verl's own"
    if OmegaConf.select(config, "trainer.device", default="cuda") not in ("cuda", "cpu"):
        return f"trainer.device is {config.trainer.device}, whose engine is verl's own"
    if OmegaConf.select(config, "critic.enable") or OmegaConf.select(config, "algorithm.adv_estimator") == "gae":
        return "the critic's engine is verl's own"
    if OmegaConf.select(config, "reward.reward_model.enable"):
        return "a reward model reads the images of the rows"
    if OmegaConf.select(config, "skip.rollout_tq.enable"):
        return "skip.rollout_tq saves rows, and would save them without pixels"
    return None


def why_rewards_are_remote(config: DictConfig) -> str | None:
    """Why verl's reward workers compute the rewards; None where the agent loop's worker does it by itself.

    Only this package's own reward takes microseconds whatever the answer is. Other people's may wait or compute.
    """
    reward = OmegaConf.select(config, "reward.custom_reward_function", default={}) or {}
    if (reward.get("path"), reward.get("name")) != ("pkg://omniq_verl.rewards", "compute_score"):
        return "the reward function is not this package's"
    manager = OmegaConf.select(config, "reward.reward_manager", default={}) or {}
    if (manager.get("source", "register"), manager.get("name", "naive")) != ("register", "naive"):
        return "the reward manager is not verl's naive one"
    if OmegaConf.select(config, "reward.reward_model.enable"):
        return "there is a reward model"
    settings = reward.get("reward_kwargs") or {}
    every = [settings, *(settings.get("sources") or {}).values()]
    if any(is_reference(one.get("score_reward")) for one in every):
        return "reward_kwargs.score_reward names a function of your own"
    return None


def knows_images(features: Mapping[str, Any]) -> bool:
    """Whether a processor's output is of text and images alone, so that what rows need does not depend on the answer.

    An empty output is of a builder that reports none.
    """
    return bool(features) and features.keys() <= _OF_IMAGES and (PIXELS in features) == ("image_grid_thw" in features)


def without_pixels(inputs: Mapping[str, Any], group: str) -> dict[str, Any]:
    """What a row carries of its ``multi_modal_inputs`` where the pixels of its group are stored once."""
    return {**{name: value for name, value in inputs.items() if name != PIXELS}, MARKER: group}


def without_images(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row's messages without the images, encoded and decoded, that verl's dataset puts into them."""
    return [{**turn, "content": _without_image(turn.get("content"))} for turn in messages]


def _without_image(content: Any) -> Any:
    if isinstance(content, str) or not isinstance(content, Sequence):
        return content
    return [
        {"type": "image"} if isinstance(part, Mapping) and part.get("type") == "image" else part for part in content
    ]
