"""OmniQuality-R, released as VisualScore (arXiv 2510.10609): three tasks on a scale from 0 to 5."""

from omniq_verl.families.family import Family
from omniq_verl.families.reading import read_number
from omniq_verl.tasks import Scale, Task

_SYSTEM = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant"
    " first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning"
    " process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think>"
    " reasoning process here </think><answer> answer here </answer>"
)


def _task(name: str, question: str) -> Task:
    return Task(name=name, scale=Scale(0.0, 5.0), system=_SYSTEM, questions=(question,))


VISUALSCORE = Family(
    name="visualscore",
    title="OmniQuality-R (VisualScore)",
    sources=("https://github.com/yeppp27/VisualScore/blob/main/README.md",),
    tasks={
        "technical": _task(
            "technical",
            "Give a technical quality score for this picture between {low} and {high} (float, two decimal places). A"
            " rating of {low} represents very poor quality, while {high} represents excellent quality.",
        ),
        "aesthetic": _task(
            "aesthetic",
            "Provide a float rating between {low} and {high} for the overall aesthetics of this image, rounded to two"
            " places. A rating of {low} represents very poor aesthetic quality, while {high} represents excellent"
            " aesthetic quality.",
        ),
        "alignment": _task(
            "alignment",
            'Judge the image alignment with the prompt: "{text}"\nPlease evaluate how well the image matches each'
            " element of provided prompt.\n\nAnd answer with the final alignment rating.\nRate it from {low} to {high}"
            " (float, 2 decimals). A rating of {low} represents very poor alignment level, while {high} represents"
            " excellent alignment level.",
        ),
    },
    model_types=("qwen2_5_vl",),
    marks=("visualscore", "omniquality-r", "omniquality_r"),
    read=read_number,
    max_pixels=4000 * 28 * 28,
    unsure=(
        "The README scores alignment with the question for aesthetics, evidently by mistake; here its own template"
        " for alignment is used.",
        "The authors sample at temperature 0.7 with top-p 0.8 and top-k 20; here one answer is greedy.",
    ),
)
