"""The batch rewards of this package, by their names in recipes.

Your own reward needs no entry here: set ``reward.batch_reward=package.module:function``.
"""

_HERE = "omniq_verl.rewards.batch"

SHELF = {
    "evoquality": f"{_HERE}.evoquality:evoquality",
    "length_penalty": f"{_HERE}.length_penalty:length_penalty",
    "listwise": f"{_HERE}.listwise:listwise",
    "pairwise_accuracy": f"{_HERE}.pairwise_accuracy:pairwise_accuracy",
    "per_head": f"{_HERE}.per_head:per_head",
    "repetition_penalty": f"{_HERE}.repetition_penalty:repetition_penalty",
    "soft_label": f"{_HERE}.soft_label:soft_label",
    "tatar": f"{_HERE}.tatar:tatar",
    "together": f"{_HERE}.together:together",
    "uncertain_gaussian": f"{_HERE}.uncertain_gaussian:uncertain_gaussian",
    "visualquality_r1": f"{_HERE}.visualquality_r1:visualquality_r1",
}
