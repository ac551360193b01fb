"""Q-Insight (arXiv 2503.22679): reasons and answers with a JSON object. The question comes before the image."""

from dataclasses import replace

from omniq_verl.families.family import Family, read_strictly
from omniq_verl.families.reading import read_rating
from omniq_verl.rewards.parsing import Parsed
from omniq_verl.tasks import IMAGE_PLACEHOLDER, Q_INSIGHT_DEGRADATION, Q_INSIGHT_SCORE, Task


def _before_image(task: Task, name: str) -> Task:
    return replace(task, name=name, like="", questions=tuple(one + IMAGE_PLACEHOLDER for one in task.questions))


def _read(text: str, task: Task) -> Parsed:
    return read_rating(text, task) if task.scale is not None else read_strictly(text, task)


Q_INSIGHT = Family(
    name="q_insight",
    title="Q-Insight",
    sources=(
        "https://github.com/bytedance/Q-Insight/blob/main/src/eval/demo_score.py",
        "https://github.com/bytedance/Q-Insight/blob/main/README.md",
        "arXiv 2503.22679, table 1",
    ),
    tasks={
        "technical": _before_image(Q_INSIGHT_SCORE, "technical"),
        "degradation": _before_image(Q_INSIGHT_DEGRADATION, "degradation"),
    },
    model_types=("qwen2_5_vl",),
    marks=("q-insight", "q_insight", "qinsight"),
    read=_read,
    subfolder="score_degradation",
    unsure=(
        "demo_score.py was read in a fork (jxma20/Q-insight-underwater, 8e9ac26); it puts the question before the"
        " image. Whether training did so was not checked.",
        "The authors sample at temperature 1 with top-k 50 and top-p 0.95; here one answer is greedy.",
    ),
)
