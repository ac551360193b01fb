"""Generate images from texts with any diffusers pipeline; each image has its own seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from PIL import Image
from safetensors import SafetensorError

from omniq_verl.generation.model_folder import expanded
from omniq_verl.generation.weights import check_loaded
from omniq_verl.object_reference import is_reference, load_function

DEFAULT_MODEL = "Efficient-Large-Model/Sana_1600M_1024px_diffusers"
"""SANA-1.0-1.6B, the generator of OmniQuality-R's table 5."""
EXPECTED = "function(spec: GeneratorSpec) -> an object with draw(texts, seeds) -> list of PIL images"


@dataclass(frozen=True)
class GeneratorSpec:
    """The pipeline and its settings: everything an image depends on besides its text and seed."""

    model: str = DEFAULT_MODEL
    """Hugging Face folder or name of a text-to-image pipeline, or your own ``package.module:function``, which is called
    with this object and returns a ``Generator``."""
    steps: int | None = None
    """Denoising steps; None: the pipeline's default."""
    guidance: float | None = None
    """Guidance scale; None: the pipeline's default."""
    height: int | None = None
    """Pixels; None: the pipeline's default."""
    width: int | None = None
    dtype: str = "auto"
    """float32, bfloat16, float16; auto: bfloat16 on a GPU, float32 on a CPU."""

    def __post_init__(self) -> None:
        sizes = [size for size in (self.steps, self.height, self.width) if size is not None]
        if min(sizes, default=1) < 1 or self.dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ValueError(
                f"steps, height and width must be >= 1, and dtype auto, float32, bfloat16 or float16; got {self}"
            )


class Generator(Protocol):
    """Anything that draws images from texts."""

    def draw(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """Draw one image per text and seed. The same text and seed give the same image in any batch."""
        ...


def open_generator(spec: GeneratorSpec) -> Generator:
    """Load the pipeline.

    Raises:
        ValueError: the model is neither a pipeline nor a function.
    """
    if not is_reference(spec.model):
        return DiffusersPipeline(spec)
    opened = load_function("--generator", spec.model, EXPECTED, 1)(spec)
    if not callable(getattr(opened, "draw", None)):
        raise ValueError(f"--generator {spec.model} returns {opened!r:.80}, which cannot draw. Fix: name {EXPECTED}")
    return opened


def _open_parts(model: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Load a pipeline's networks by name, because diffusers would initialise missing weights with random numbers.

    Raises:
        BadWeights: weights are missing.
    """
    from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]  exported lazily
    from torch import nn

    parts: dict[str, Any] = {}
    config: dict[str, Any] = DiffusionPipeline.load_config(model)  # pyright: ignore[reportAssignmentType]  no pair
    for name, described in config.items():
        if not isinstance(described, (list, tuple)) or described[0] not in ("diffusers", "transformers"):
            continue
        kind = getattr(import_module(described[0]), described[1], None)
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            opened = kind.from_pretrained  # pyright: ignore[reportAttributeAccessIssue]  both packages' models have it
            parts[name], info = opened(model, subfolder=name, output_loading_info=True, **settings)
            check_loaded(f"{model}/{name}", info)
    return parts


class DiffusersPipeline:
    """A pipeline on this process's GPU, or the CPU if there is none; loads weights only from safetensors."""

    def __init__(self, spec: GeneratorSpec):
        import torch
        from diffusers import AutoPipelineForText2Image  # pyright: ignore[reportPrivateImportUsage]  exported lazily

        device = "cuda" if torch.cuda.is_available() else "cpu"
        chosen = {"auto": "bfloat16" if device == "cuda" else "float32"}.get(spec.dtype, spec.dtype)
        model, settings = expanded(spec.model), {"torch_dtype": getattr(torch, chosen), "use_safetensors": True}
        try:
            parts = _open_parts(model, settings)
            pipeline = AutoPipelineForText2Image.from_pretrained(model, **parts, **settings)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{spec.model} cannot be loaded as a diffusers pipeline ({error})") from error
        self._pipeline = pipeline.to(device)
        self._pipeline.set_progress_bar_config(disable=True)
        given = {"num_inference_steps": spec.steps, "guidance_scale": spec.guidance}
        given |= {"height": spec.height, "width": spec.width}
        self._settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    def draw(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """Draw one image per text and seed. Noise is sampled on the CPU, so that it is the same on every device.

        The other images of a batch change at most the last bits of floating-point sums: a few pixels by one grey level.
        """
        import torch

        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        asked: dict[str, Any] = {"prompt": list(texts)}
        if len(set(texts)) == 1:  # encode the text only once
            asked = {"prompt": texts[0], "num_images_per_prompt": len(texts)}
        return self._pipeline(**asked, generator=generators, **self._settings).images
