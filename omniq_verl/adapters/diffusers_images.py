"""Pick the best image of each text after a call of a diffusers pipeline.

Pipelines return ``output.images``: PIL images, or an array ``[N, H, W, 3]`` (``output_type="np"``) or a tensor
``[N, 3, H, W]`` (``"pt"``) in [0, 1]. With ``num_images_per_prompt=n``, the first n images belong to the first text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omniq_verl.adapters.scale import AnyScorer
from omniq_verl.data.arrays import image_from, is_numbers
from omniq_verl.scoring.image_inputs import listed
from omniq_verl.scoring.scorer import Score

_RANGE = (0.0, 1.0)
"""Black and white in a pipeline's arrays and tensors."""


@dataclass(frozen=True)
class Picked:
    """The scores of one text's images, and the image with the highest score."""

    prompt: str
    best: int | None
    """Index of the best among the text's images, the first one if several are equal; None: no image has a score."""
    image: Any
    """The best image as the pipeline returned it, or None."""
    scores: list[Score]
    """One entry per image of the text, in order."""


def pick_best(output: Any, prompts: str | Sequence[str], scorer: AnyScorer, task: str = "alignment") -> list[Picked]:
    """Score the images of a finished pipeline call and pick the best of each text.

    Args:
        output: what the pipeline returned (with or without ``return_dict=False``), or its ``images``.
        prompts: the texts of the call, in the same order.
        scorer: any kind of scorer.
        task: a task with a score.

    Raises:
        ValueError: the images cannot be divided evenly among the texts.
        BadImage: an array or tensor does not hold images, for example latents (``output_type="latent"``).
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    images = list(listed(_images_of(output)))
    if not texts or not images or len(images) % len(texts):
        raise ValueError(
            f"{len(images)} images cannot belong to {len(texts)} texts."
            " Fix: give the texts of the call and all images that it returned"
        )
    each = len(images) // len(texts)
    shown = [image_from(one, _RANGE) if is_numbers(one) else one for one in images]
    scores = scorer.score(shown, task=task, prompt=[text for text in texts for _ in range(each)])
    return [
        _picked(text, images[first : first + each], scores[first : first + each])
        for text, first in zip(texts, range(0, len(images), each), strict=True)
    ]


def _images_of(output: Any) -> Any:
    """Return the images of an output. With ``return_dict=False`` it is a tuple that begins with them."""
    if isinstance(output, tuple) and output and (isinstance(output[0], list) or getattr(output[0], "ndim", 0) == 4):
        return output[0]
    return getattr(output, "images", output)


def _picked(prompt: str, images: Sequence[Any], scores: Sequence[Score]) -> Picked:
    scored = {index: one.score for index, one in enumerate(scores) if one.score is not None}
    best = max(scored, key=lambda index: scored[index], default=None)
    return Picked(prompt, best, None if best is None else images[best], list(scores))
