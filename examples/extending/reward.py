"""A custom score reward: it falls with a power of the distance to the label and is 0 from ``reach`` on.

    PYTHONPATH=examples/extending python -m verl.trainer.main_ppo ... \
        reward.custom_reward_function.reward_kwargs.score_reward=reward:closeness \
        +reward.custom_reward_function.reward_kwargs.score_settings.power=2
"""


def closeness(pred: float, target: float, power: float = 1.0, reach: float = 2.0) -> float:
    """1 at the label, falling to 0 at a distance of ``reach``.

    Args:
        pred: predicted score, on the task's scale.
        target: label, on the same scale.
        power: 1 falls linearly; a larger value gives close answers more of the reward.
        reach: distance in units of the scale at which the reward reaches 0.
    """
    distance = min(abs(pred - target) / reach, 1.0)
    return 1.0 - distance**power
