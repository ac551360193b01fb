"""Q-Insight's prompts, word for word: its table 1, and table A.4 of the RACT paper for the system prompt in full."""

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

CHOICES = {"image a": "first", "image b": "second"}
"""Answers to a comparison, in small letters, and which image of the question they name."""
_WITH_REFERENCE = (
    "Given reference low-quality image: {image}, Image A: {image} and Image B: {image}. Image A and Image B are results"
    " from two resolution methods. Explain and justify whether Image A or Image B is better. You should think from the"
    " following aspects: (1) Content fidelity and consistency with the reference image and (2) overall quality. Your"
    ' answer should be "Image A" or "Image B".'
)
_WITHOUT = (  # ours: the paper shows such comparisons (figure 5) without their prompt
    "Given Image A: {image} and Image B: {image}. Explain and justify whether Image A or Image B is of better overall"
    ' quality. Your answer should be "Image A" or "Image B".'
)


def comparison_messages(reference: bool) -> list[dict[str, str]]:
    """Which of two images is better; images stand in the order reference (where there is one), A, B."""
    question = (_WITH_REFERENCE if reference else _WITHOUT).format(image=IMAGE_PLACEHOLDER)
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
