"""A custom task: how sharp is an image, from 0 to 10?

PYTHONPATH=examples/extending python data_prep/manifest.py --task task:SHARPNESS ...
PYTHONPATH=examples/extending omniq score photos/ --task task:SHARPNESS --model ...
"""

from omniq_verl.tasks import Scale, Task

ANSWER_RULE = " Reason in <think></think>, then give the number in <answer></answer>."

SHARPNESS = Task(
    name="sharpness",
    scale=Scale(0.0, 10.0),
    answer_rule=ANSWER_RULE,
    questions=(
        "Rate how sharp this image is from {low} (all blurred) to {high} (every detail is sharp)." + ANSWER_RULE,
        "Look at edges and fine detail. How sharp is this image, from {low} to {high}?" + ANSWER_RULE,
    ),
)
