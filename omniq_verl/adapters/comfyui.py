"""A ComfyUI node: the score and the reasoning of each image, and the best of a batch.

ComfyUI finds nodes through ``NODE_CLASS_MAPPINGS`` in the modules of ``custom_nodes/`` (docs.comfy.org, "Custom
nodes"). Put a file there with the line ``from omniq_verl.adapters.comfyui import *``. Images are floats
``[B, H, W, 3]`` in [0, 1]. Resizing can leave values slightly outside this range. ComfyUI clips them wherever it shows
or saves an image, and so does this node.
"""

from functools import lru_cache
from typing import Any

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

_TASKS = ("technical", "aesthetic", "alignment")


@lru_cache(maxsize=1)
def _scorer(model: str, family: str, mode: str, engine: str) -> Any:
    from omniq_verl.scoring.scorer import Scorer

    settings = {"mode": None if mode == "auto" else mode, "engine": engine}
    return Scorer.from_pretrained(model, family=None if family == "auto" else family, **settings)


class OmniqScore:
    """Node that scores a batch of images. The model stays loaded between runs."""

    CATEGORY = "image/quality"
    RETURN_TYPES = ("FLOAT", "STRING", "IMAGE")
    RETURN_NAMES = ("score", "reasoning", "best")
    OUTPUT_IS_LIST = (True, True, False)
    FUNCTION = "score"
    DESCRIPTION = "Score of each image, what the model says, and the image with the highest score."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs that the node shows."""
        return {
            "required": {
                "images": ("IMAGE",),
                "model": ("STRING", {"default": "runs/stage2"}),
                "task": (list(_TASKS),),
            },
            "optional": {
                "prompt": ("STRING", {"default": "", "multiline": True}),
                "family": ("STRING", {"default": "auto"}),
                "mode": (["auto", "reason", "direct"],),
                "engine": (["hf", "vllm"],),
            },
        }

    def score(
        self,
        images: Any,
        model: str,
        task: str,
        prompt: str = "",
        family: str = "auto",
        mode: str = "auto",
        engine: str = "hf",
    ) -> tuple[list[float], list[str], Any]:
        """Return the scores (NaN if there is none), the texts, and the best image ``[1, H, W, 3]``.

        Raises:
            ValueError: no image of the batch has a score. The message says why the first one has none.
        """
        channels_first = [image.movedim(-1, 0).clamp(0, 1) for image in images]  # NaN stays NaN and is rejected
        found = _scorer(model, family, mode, engine).score(channels_first, task=task, prompt=prompt or None)
        scored = [number for number, one in enumerate(found) if one.score is not None]
        if not scored:
            why = found[0].error or found[0].status if found else "the batch is empty"
            fix = "" if "Fix: " in why else ". Fix: try another image or task, or the mode direct"
            raise ValueError(f"no image has a score: {why}{fix}")
        best = max(scored, key=lambda number: found[number].score)
        scores = [float("nan") if one.score is None else one.score for one in found]
        return scores, [one.reasoning or one.error or one.status for one in found], images[best : best + 1]


NODE_CLASS_MAPPINGS = {"OmniqScore": OmniqScore}
NODE_DISPLAY_NAME_MAPPINGS = {"OmniqScore": "Image quality (omniq)"}
