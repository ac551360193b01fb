"""VisualQuality-R1 (arXiv 2505.14460): reasons and answers with a number from 1 to 5."""

from omniq_verl.families.family import Family
from omniq_verl.families.reading import read_number
from omniq_verl.tasks import IMAGE_PLACEHOLDER, Scale, Task

QUESTION = (
    "You are doing the image quality assessment task. Here is the question: What is your overall rating on the quality"
    " of this picture? The rating should be a float between 1 and 5, rounded to two decimal places, with 1 representing"
    " very poor quality and 5 representing excellent quality."
)
_RULE = (
    " First output the thinking process in <think> </think> tags and then output the final answer with only one score"
    " in <answer> </answer> tags."
)

VISUALQUALITY_R1 = Family(
    name="visualquality_r1",
    title="VisualQuality-R1",
    sources=("https://github.com/TianheWu/VisualQuality-R1/blob/main/README.md",),
    tasks={
        "technical": Task(
            name="technical",
            scale=Scale(1.0, 5.0),
            answer_rule=_RULE,
            # Its code renders the chat with add_vision_id=True, which writes this before the first image.
            questions=(f"Picture 1: {IMAGE_PLACEHOLDER}{QUESTION}{_RULE}",),
        )
    },
    model_types=("qwen2_5_vl",),
    marks=("visualquality-r1", "visualquality_r1"),
    read=read_number,
    unsure=(
        "The authors sample with top-k 50 and take a random score from 1 to 5 where none can be read; here one answer"
        " is greedy, and an unreadable one has no score.",
        "Their question for scoring without reasoning ends in another sentence; the mode direct asks this one.",
    ),
)
