"""Check that numbers are in range. Some errors would otherwise show up only after Ray and the engine have started."""

from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.problem import Problem

GRPO_NUMBERS = (
    *("data.train_batch_size", "data.max_prompt_length", "data.max_response_length"),
    *("actor_rollout_ref.rollout.n", "actor_rollout_ref.actor.ppo_mini_batch_size"),
    *("trainer.nnodes", "trainer.n_gpus_per_node"),
)
# Advantage estimators of verl that subtract a statistic of the group (verl/trainer/ppo/core_algos.py).
_COMPARING = {
    *("grpo", "grpo_passk", "grpo_vectorized", "gdpo", "opo", "rloo", "rloo_vectorized"),
    "reinforce_plus_plus_baseline",
}
_LEARNING_RATE_LIMIT = 0.1  # AdamW moves each weight by about this much per step, and weights are about 0.02
SFT_NUMBERS = ("data.train_batch_size", "data.max_length")


def check_numbers(config: DictConfig, keys: Iterable[str]) -> list[Problem]:
    """Report keys whose value is not a whole number above 0."""
    values = {key: OmegaConf.select(config, key) for key in keys}
    return [
        Problem(f"{key}={value}", "it is not a whole number above 0", f"give one, e.g. {key}=8")
        for key, value in values.items()
        if type(value) is not int or value < 1
    ]


def check_group(config: DictConfig) -> list[Problem]:
    """Report groups of one answer if the advantage estimator compares the answers of a group."""
    key, estimator = "actor_rollout_ref.rollout.n", OmegaConf.select(config, "algorithm.adv_estimator")
    if OmegaConf.select(config, key) != 1 or estimator not in _COMPARING:
        return []
    what = f"{estimator} compares the answers of a group, and a group of one has nothing to compare with"
    return [Problem(f"{key}=1", what, f"raise it, e.g. {key}=8")]


def check_learning_rate(config: DictConfig, key: str) -> list[Problem]:
    """Report a learning rate that would destroy the model."""
    value = OmegaConf.select(config, key)
    if type(value) in (int, float) and 0 <= value < _LEARNING_RATE_LIMIT:
        return []
    what = f"a learning rate has to be a number from 0 to {_LEARNING_RATE_LIMIT}; more destroys a pretrained model"
    return [Problem(f"{key}={value}", what, f"lower it, e.g. {key}=1.0e-6")]
