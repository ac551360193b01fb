"""Which model answers and what runs it, in a form that travels to the worker which opens it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omniq_verl.data.image_size import ImageSize
from omniq_verl.generation.hub import check_hub_name
from omniq_verl.generation.model_folder import check_model_folder, checkpoint_of, expanded, weights_mark

LONGEST = 8192
"""Ours: an image of five megapixels is 6,400 tokens to Qwen2.5-VL."""

LOCAL_KINDS = ("vllm", "hf")
"""Engines that read the weights themselves."""


@dataclass(frozen=True)
class EngineSpec:
    """Which model answers, and what runs it."""

    model: str
    """A Hugging Face folder or name, or the folder of a training run, whose newest checkpoint is taken; for ``openai``
    the name the endpoint knows."""
    kind: str = "vllm"
    """``vllm``, ``hf`` (transformers), ``openai`` (any endpoint that speaks its chat API), or
    ``package.module:function`` of your own: called with this object, it returns an engine
    (``omniq_verl.generation.request.Engine``)."""
    base_url: str | None = None
    """Of the endpoint, e.g. http://localhost:8000/v1; its key is read from OPENAI_API_KEY."""
    max_model_len: int | None = None
    """Tokens of question and answer together; None: 8192, or what the model was made for where that is less."""
    dtype: str = "auto"
    memory: float | None = None
    """Share of a device's memory vLLM may take; on a CPU: of the machine's. None: 0.85 of a GPU; on a CPU what the
    model needs, as far as it is free."""
    devices: int = 1
    """GPUs over which one model is split."""
    images: int = 1
    """The most a question shows."""
    allow_pickle: bool = False
    """Load weights that are pickle files, which can run any code."""
    trust_remote_code: bool = False
    """Run Python code that lies in the model's folder."""
    short_side: int | None = None
    """Larger images are shrunk to this length of the shorter side, in pixels, before the model sees them."""
    max_pixels: int | None = None
    """Larger images are shrunk to this many pixels; None: whatever the model's own processor allows."""

    @property
    def image_size(self) -> ImageSize:
        """The bounds of images."""
        return ImageSize(self.short_side, self.max_pixels)

    def __post_init__(self) -> None:
        if self.image_size and self.kind == "openai":
            raise ValueError("short_side and max_pixels: an endpoint sizes images itself. Fix: leave them out")
        if self.kind in LOCAL_KINDS and self.model:
            object.__setattr__(self, "model", checkpoint_of(expanded(self.model)))

    def length_of(self, config: Any) -> int:
        """``max_model_len``, or what stands for None.

        Args:
            config: of the model, as transformers reads it.
        """
        made_for = getattr(config.get_text_config(), "max_position_embeddings", LONGEST)
        return self.max_model_len or min(LONGEST, made_for)

    def identity(self) -> dict[str, Any]:
        """What an answer depends on, for those who keep answers.

        Weights trained anew in the same folder are another model; what stands behind a name at a hub or an endpoint
        cannot be seen.
        """
        weights = weights_mark(Path(self.model)) if self.kind in LOCAL_KINDS else None
        found = {"model": self.model, "kind": self.kind, "dtype": self.dtype, "weights": weights}
        found |= asdict(self.image_size) if self.image_size else {}
        return found | ({"base_url": self.base_url} if self.base_url else {})

    def check(self) -> None:
        """Look at the model's folder, or for its name at the hub, before anything long begins.

        Raises:
            ValueError: it is not there, not whole, or not safe to open.
        """
        if self.kind in LOCAL_KINDS:
            if self.model and not Path(self.model).expanduser().is_dir() and not self.model.startswith(("/", ".", "~")):
                check_hub_name(self.model)
            check_model_folder(self.model, self.allow_pickle, self.trust_remote_code)
