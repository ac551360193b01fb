"""Q-Insight's prompts, verbatim: from its table 1, with the full system prompt from table A.4 of the RACT paper."""

from omniq_verl.tasks.task import IMAGE_PLACEHOLDER, Scale, Task

SYSTEM = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant"
    " first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning"
    " process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think>"
    " reasoning process here </think><answer> answer here </answer>."
)

Q_INSIGHT_SCORE = Task(
    name="q_insight_score",
    like="technical",
    system=SYSTEM,
    scale=Scale(1.0, 5.0),
    answer_format="json",
    questions=(
        "What is your overall rating on the quality of this picture? The rating should be a float between {low} and"
        " {high}, rounded to two decimal places, with {low} representing very poor quality and {high} representing"
        ' excellent quality. Return the final answer in JSON format with the following keys: "rating": The score.',
    ),
)

Q_INSIGHT_DEGRADATION = Task(
    name="q_insight_degradation",
    like="degradation",
    system=SYSTEM,
    scale=None,
    answer_format="json",
    questions=(
        'Analyze the given image and determine if it contains any of the following distortions: "noise",'
        ' "compression", "blur", or "darken". If a distortion is present, classify its severity as "slight",'
        ' "moderate", "obvious", "serious", or "catastrophic". Return the result in JSON format with the following'
        ' keys: "distortion_class": The detected distortion (or "null" if none). and "severity": The severity level'
        ' (or "null" if none).',
    ),
)

DESCRIBE = "What is your overall assessment of the quality of this picture?"
"""RACT's quality description task (table A.4)."""

Q_INSIGHT_COMPARISON = Task(
    name="q_insight_comparison",
    system=SYSTEM,
    scale=None,
    answer_format="choice",
    questions=(  # our wording: the paper shows such comparisons (figure 5) but not the prompt
        f"Given Image A: {IMAGE_PLACEHOLDER} and Image B: {IMAGE_PLACEHOLDER}. Explain and justify whether Image A or"
        ' Image B is of better overall quality. Your answer should be "Image A" or "Image B".',
    ),
)
"""The images are in the order A, B."""

Q_INSIGHT_COMPARISON_REFERENCE = Task(
    name="q_insight_comparison_reference",
    system=SYSTEM,
    scale=None,
    answer_format="choice",
    questions=(
        f"Given reference low-quality image: {IMAGE_PLACEHOLDER}, Image A: {IMAGE_PLACEHOLDER} and Image B:"
        f" {IMAGE_PLACEHOLDER}. Image A and Image B are results from two resolution methods. Explain and justify"
        " whether Image A or Image B is better. You should think from the following aspects: (1) Content fidelity and"
        ' consistency with the reference image and (2) overall quality. Your answer should be "Image A" or "Image B".',
    ),
)
"""The images are in the order reference, A, B."""


def comparison_task(reference: bool) -> Task:
    """Return the comparison of two images, with or without the low-quality image both were made from."""
    return Q_INSIGHT_COMPARISON_REFERENCE if reference else Q_INSIGHT_COMPARISON
