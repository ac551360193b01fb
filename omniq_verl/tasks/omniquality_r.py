"""This package's own wording of the tasks: OmniQuality-R does not print its prompts."""

from omniq_verl.tasks.task import DISTORTIONS, SEVERITIES, Scale, Task

_ANSWER_RULE = " Reason in <think></think>, then give the number in <answer></answer>."

TECHNICAL = Task(
    name="technical",
    scale=Scale(1.0, 5.0),
    answer_rule=_ANSWER_RULE,
    questions=(
        "Rate the technical quality of this image from {low} (bad) to {high} (excellent)." + _ANSWER_RULE,
        "How good is the technical quality of this image, from {low} (bad) to {high} (excellent)?" + _ANSWER_RULE,
        "Look for defects, then rate this image's technical quality, {low} (bad) to {high} (excellent)." + _ANSWER_RULE,
    ),
)

AESTHETIC = Task(
    name="aesthetic",
    scale=Scale(1.0, 5.0),
    answer_rule=_ANSWER_RULE,
    questions=(
        "Rate how beautiful this image is from {low} (bad) to {high} (excellent)." + _ANSWER_RULE,
        "How good is this image as a picture to look at, from {low} (bad) to {high} (excellent)?" + _ANSWER_RULE,
        "Look at composition, light and colour, then rate this image's beauty, {low} (bad) to {high} (excellent)."
        + _ANSWER_RULE,
    ),
)

ALIGNMENT = Task(
    name="alignment",
    scale=Scale(1.0, 5.0),
    answer_rule=_ANSWER_RULE,
    questions=(
        'This image was made from the text "{text}". Rate from {low} (bad) to {high} (excellent) how well it shows what'
        " the text says." + _ANSWER_RULE,
        'Does this image fit the text "{text}"? Say so from {low} (not at all) to {high} (in everything).'
        + _ANSWER_RULE,
        'Go through what the text "{text}" asks for, then rate from {low} (bad) to {high} (excellent) how much of it'
        " this image shows." + _ANSWER_RULE,
    ),
)

_CLASS_RULE = (
    f" It is one of {', '.join(DISTORTIONS)}; its severity one of {', '.join(SEVERITIES)}; both are null where there is"
    ' none. Reason in <think></think>, then give a JSON object with the keys "distortion_class" and "severity" in'
    " <answer></answer>."
)

DEGRADATION = Task(
    name="degradation",
    scale=None,
    answer_format="json",
    answer_rule=_CLASS_RULE,
    questions=(
        "Which distortion does this image have, and how strong is it?" + _CLASS_RULE,
        "Find the distortion of this image, if there is one, and say how serious it is." + _CLASS_RULE,
    ),
)
