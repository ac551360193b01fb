"""UnifiedReward (arXiv 2503.05236) rates an image against its caption. 2.0 gives three scores; -Think only compares."""

from functools import partial

from omniq_verl.families.family import Family
from omniq_verl.families.reading import read_line
from omniq_verl.generation.expectation import ScoreTexts, numerals
from omniq_verl.rewards.parsing import Parsed
from omniq_verl.tasks import Scale, Task

_SCALE = Scale(1.0, 5.0)
_LABELS = {"alignment": "Alignment Score", "technical": "Coherence Score", "aesthetic": "Style Score"}
_FINAL = (
    "You are given a text caption and a generated image based on that caption. Your task is to evaluate this image"
    " based on two key criteria:\n1. Alignment with the Caption: Assess how well this image aligns with the provided"
    " caption. Consider the accuracy of depicted objects, their relationships, and attributes as described in the"
    " caption.\n2. Overall Image Quality: Examine the visual quality of this image, including clarity, detail"
    " preservation, color accuracy, and overall aesthetic appeal.\nExtract key elements from the provided text caption,"
    " evaluate their presence in the generated image using the format: 'element (type): value' (where value=0 means not"
    " generated, and value=1 means generated), and assign a score from 1 to 5 after 'Final Score:'.\nYour task is"
    " provided as follows:\nText Caption: [{text}]"
)
_THREE = (
    "You are presented with a generated image and its associated text caption. Your task is to analyze the image across"
    " multiple dimensions in relation to the caption. Specifically:\nProvide overall assessments for the image along"
    " the following axes (each rated from 1 to 5):\n- Alignment Score: How well the image matches the caption in terms"
    " of content.\n- Coherence Score: How logically consistent the image is (absence of visual glitches, object"
    " distortions, etc.).\n- Style Score: How aesthetically appealing the image looks, regardless of caption accuracy."
    "\n\nOutput your evaluation using the format below:\n\nAlignment Score (1-5): X\nCoherence Score (1-5): Y\nStyle"
    " Score (1-5): Z\n\nYour task is provided as follows:\nText Caption: [{text}]"
)


def _read_three(text: str, task: Task) -> Parsed:
    return read_line(text, task, _LABELS[task.name])


def _final_texts(task: Task) -> ScoreTexts:
    values = numerals(task.score_scale.low, task.score_scale.high, 2)
    return ScoreTexts(values, "Final Score: ", ("\n", "<|im_end|>"), "Final Score: {}")


UNIFIED_REWARD = Family(
    name="unified_reward",
    title="UnifiedReward",
    sources=(
        "https://github.com/CodeGoat24/UnifiedReward/blob/main/inference_qwen/image_generation/"
        "qwen_point_score_image_generation.py",
    ),
    tasks={"alignment": Task(name="alignment", scale=_SCALE, questions=(_FINAL,))},
    model_types=("qwen2_5_vl", "qwen3_vl"),
    marks=("unifiedreward", "unified_reward"),
    read=partial(read_line, label="Final Score"),
    texts=_final_texts,
    unsure=(
        "One score stands for alignment and quality together.",
        "In the mode direct the list of elements that the model writes before its score is left out.",
    ),
)

UNIFIED_REWARD_2 = Family(
    name="unified_reward_2",
    title="UnifiedReward 2.0",
    sources=(
        "https://github.com/CodeGoat24/UnifiedReward/blob/main/inference_qwen/UnifiedReward-2.0-inference/"
        "point_score_ACS_image_generation.py",
    ),
    tasks={name: Task(name=name, scale=_SCALE, questions=(_THREE,)) for name in _LABELS},
    model_types=("qwen2_5_vl", "qwen3_vl", "qwen3_5"),
    marks=("unifiedreward-2", "unified_reward_2"),
    read=_read_three,
    modes=("reason",),
    unsure=(
        "Its coherence score stands for the technical task: it is about glitches, not about noise or blur.",
        "Every task needs the caption, as the one question asks for all three scores.",
    ),
)

UNIFIED_REWARD_THINK = Family(
    name="unified_reward_think",
    title="UnifiedReward-Think",
    sources=(
        "https://github.com/CodeGoat24/UnifiedReward/blob/main/UnifiedReward-Think/inference_qwen/image_generation/"
        "qwen_infer_cot_image_generation.py",
    ),
    tasks={},
    marks=("unifiedreward-think", "unified_reward_think"),
    rejection=(
        "UnifiedReward-Think compares two images of one caption and rates no single one. Fix: take UnifiedReward or"
        " UnifiedReward-2.0 for scores, or `omniq compare-images`, which asks with this package's own wording"
    ),
)
