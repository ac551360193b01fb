"""EvoQuality (arXiv 2509.25787): asks VisualQuality-R1's question; trained without labels on the model's own votes."""

from omniq_verl.families.family import Family
from omniq_verl.families.reading import read_number
from omniq_verl.families.visualquality_r1 import QUESTION
from omniq_verl.tasks import Scale, Task

_RULE = (
    " Reason in <think> </think> tags and then output the final answer with only one score in <answer> </answer> tags."
)

EVOQUALITY = Family(
    name="evoquality",
    title="EvoQuality",
    sources=("https://huggingface.co/ByteDance/EvoQuality (model card, section Prompts)",),
    tasks={
        "technical": Task(
            name="technical", scale=Scale(1.0, 5.0), answer_rule=_RULE, questions=(f" {QUESTION}{_RULE}",)
        )
    },
    model_types=("qwen2_5_vl",),
    marks=("evoquality",),
    read=read_number,
    unsure=(
        "The card's question was read; of its suffix that asks for reasoning only the beginning, so that the last"
        " sentence of this question is ours.",
        "The authors have published no code: how they read an answer is not known.",
    ),
)
