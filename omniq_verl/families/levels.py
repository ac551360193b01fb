"""Scorers without reasoning whose score is the expected level word after "The quality of the image is".

These are Q-Align (arXiv 2312.17090), DeQA-Score (2501.11561) and Q-ReAlign. Their code takes the softmax over the first
token of each word. Here the probabilities of all ways to write a word are summed, which is the same if each word is one
token.

``levels`` is the family of models that this package trains in the same form (``recipes/baselines``).
"""

from collections.abc import Mapping
from dataclasses import replace

from omniq_verl.families.family import Family
from omniq_verl.generation.expectation import ScoreTexts
from omniq_verl.tasks import AESTHETIC, ALIGNMENT, LEVELS, TECHNICAL, Scale, Task
from omniq_verl.tasks.expected_level import ASPECTS, level_stem, level_values

_OWL_TYPES = ("mplug_owl2",)
_OWL = (
    "{title} is an mPLUG-Owl2, which transformers does not have, so that it needs Python code of its own and old"
    " versions of its packages. Fix: score with pyiqa (metric {metric}) in an environment of its own, or take"
    " Q-ReAlign, which has the same levels on an architecture of transformers"
)


def _tasks(scale: Scale) -> Mapping[str, Task]:
    return {
        name: Task(name=name, scale=scale, questions=(f"How would you rate the {aspect} of this image?",))
        for name, aspect in ASPECTS.items()
        if name != "alignment"  # an aspect that we added
    }


def level_texts(task: Task) -> ScoreTexts:
    """Return the five words with their values: the worst at the low end of the task's scale, the rest evenly spaced."""
    values = level_values(task.score_scale).tolist()
    return ScoreTexts(tuple((f" {word}", value) for word, value in zip(LEVELS, values, strict=True)), level_stem(task))


def _without_rule(task: Task) -> Task:
    questions = tuple(question.removesuffix(task.answer_rule) for question in task.questions)
    return replace(task, questions=questions, answer_rule="", reasoning=False)


LEVEL_SCORER = Family(
    name="levels",
    title="a level scorer of omniq_verl",
    sources=("omniq_verl/baselines/answers.py",),
    tasks={task.name: _without_rule(task) for task in (TECHNICAL, AESTHETIC, ALIGNMENT)},
    marks=("level-scorer", "level_scorer"),
    mode="direct",
    modes=("direct",),
    texts=level_texts,
)


Q_REALIGN = Family(
    name="q_realign",
    title="Q-ReAlign",
    sources=(
        "https://github.com/Q-Future/Q-ReAlign/blob/main/README.md",
        "https://github.com/Q-Future/Q-ReAlign/blob/main/qalign/prompts.py",
    ),
    tasks=_tasks(Scale(0.0, 1.0)),
    marks=("q-realign", "q_realign", "qrealign"),
    mode="direct",
    modes=("direct",),
    texts=level_texts,
    unsure=(
        "The README puts the stem right behind the chat template, qalign/scorer.py a space before it; here it is as in"
        " the README.",
        "The README asks about quality alone. The question about aesthetics has the same form; prompts.py has a pool of"
        " eight for training, of which this is none.",
    ),
)

Q_ALIGN = Family(
    name="q_align",
    title="Q-Align",
    sources=("https://github.com/Q-Future/Q-Align/blob/main/q_align/evaluate/scorer.py",),
    tasks=_tasks(Scale(0.0, 1.0)),
    marks=("q-align", "one-align", "q_align"),
    mode="direct",
    modes=("direct",),
    texts=level_texts,
    rejection=_OWL.format(title="Q-Align", metric="qalign"),
    rejected_types=_OWL_TYPES,
)

DEQA = Family(
    name="deqa",
    title="DeQA-Score",
    sources=("https://github.com/zhiyuanyou/DeQA-Score/blob/main/src/evaluate/scorer.py",),
    tasks={"technical": _tasks(Scale(1.0, 5.0))["technical"]},
    marks=("deqa",),
    mode="direct",
    modes=("direct",),
    texts=level_texts,
    rejection=_OWL.format(title="DeQA-Score", metric="deqa"),
    rejected_types=_OWL_TYPES,
)
