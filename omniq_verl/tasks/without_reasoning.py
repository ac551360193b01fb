"""The tasks with a score, asking for the score at once, for models trained without reasoning (RALI, table A.1).

The questions and labels are those of the tasks with reasoning. The paper does not print its prompt.
"""

from dataclasses import replace

from omniq_verl.tasks.omniquality_r import AESTHETIC, ALIGNMENT, TECHNICAL
from omniq_verl.tasks.q_insight import Q_INSIGHT_SCORE
from omniq_verl.tasks.task import Task

RULE = " Give the number alone in <answer></answer>."
SYSTEM = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The answer is"
    " enclosed within <answer> </answer> tags, i.e., <answer> answer here </answer>."
)
"""Q-Insight's system prompt without its sentences about thinking."""


def _direct(task: Task) -> Task:
    questions = tuple(question.removesuffix(task.answer_rule) + RULE for question in task.questions)
    return replace(
        task, name=f"{task.name}_direct", like=task.name, questions=questions, answer_rule=RULE, reasoning=False
    )


TECHNICAL_DIRECT, AESTHETIC_DIRECT, ALIGNMENT_DIRECT = map(_direct, (TECHNICAL, AESTHETIC, ALIGNMENT))
Q_INSIGHT_SCORE_DIRECT = replace(Q_INSIGHT_SCORE, name="q_insight_score_direct", system=SYSTEM, reasoning=False)
