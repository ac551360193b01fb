"""Settings that have to be whole numbers above 0: verl meets some of them only when Ray and the engine have started."""

from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.problem import Problem

GRPO_NUMBERS = (
    *("data.train_batch_size", "data.max_prompt_length", "data.max_response_length"),
    *("actor_rollout_ref.rollout.n", "actor_rollout_ref.actor.ppo_mini_batch_size"),
    *("trainer.nnodes", "trainer.n_gpus_per_node"),
)
SFT_NUMBERS = ("data.train_batch_size", "data.max_length")


def check_numbers(config: DictConfig, keys: Iterable[str]) -> list[Problem]:
    """Each of these keys that has another value than a whole number above 0."""
    values = {key: OmegaConf.select(config, key) for key in keys}
    return [
        Problem(f"{key}={value}", "it is no whole number above 0", f"give one, e.g. {key}=8")
        for key, value in values.items()
        if type(value) is not int or value < 1
    ]
