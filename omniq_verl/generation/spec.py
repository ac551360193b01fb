"""Describe a model and its engine in a form that can be sent to the worker that opens it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omniq_verl.data.image_size import ImageSize
from omniq_verl.generation.hub import check_hub_name
from omniq_verl.generation.model_folder import check_model_folder, expanded, weights_mark
from omniq_verl.generation.run_folder import checkpoint_of

LONGEST = 8192
"""Our choice: Qwen2.5-VL needs 6,400 tokens for an image of five megapixels."""

LOCAL_KINDS = ("vllm", "hf")
"""Engines that read the weights themselves."""


@dataclass(frozen=True)
class EngineSpec:
    """A model and the engine that runs it."""

    model: str
    """A Hugging Face folder or name, or the folder of a training run, whose best checkpoint is used (or its newest,
    see ``run_folder``); for ``openai`` the model's name at the endpoint."""
    kind: str = "vllm"
    """``vllm``, ``hf`` (transformers), ``openai`` (any endpoint with OpenAI's chat API), or a user-defined
    ``package.module:function`` that takes this object and returns an engine
    (``omniq_verl.generation.request.Engine``)."""
    base_url: str | None = None
    """Address of the endpoint, e.g. http://localhost:8000/v1; its key is read from OPENAI_API_KEY."""
    max_model_len: int | None = None
    """Maximum number of tokens including the answer; None for 8192, or the model's own limit if that is smaller."""
    dtype: str = "auto"
    memory: float | None = None
    """Share of a GPU's memory for vLLM; on a CPU, of the machine's memory. None for 0.85 of a GPU, and on a CPU for
    what the model needs, within the free memory."""
    devices: int = 1
    """GPUs over which one model is split."""
    images: int = 1
    """Maximum number of images in a question."""
    allow_pickle: bool = False
    """Load weights from pickle files, which can run any code."""
    trust_remote_code: bool = False
    """Run Python code in the model's folder."""
    short_side: int | None = None
    """Larger images are shrunk to this length of the shorter side, in pixels, before the model sees them."""
    max_pixels: int | None = None
    """Larger images are shrunk to this many pixels; None: whatever the model's own processor allows."""

    @property
    def image_size(self) -> ImageSize:
        """The limits on image size."""
        return ImageSize(self.short_side, self.max_pixels)

    def __post_init__(self) -> None:
        if self.image_size and self.kind == "openai":
            raise ValueError("short_side and max_pixels: an endpoint resizes images itself. Fix: leave them out")
        if self.kind in LOCAL_KINDS and self.model:
            object.__setattr__(self, "model", checkpoint_of(expanded(self.model)))

    def length_of(self, config: Any) -> int:
        """``max_model_len``, or its default.

        Args:
            config: the model's configuration, as read by transformers.
        """
        made_for = getattr(config.get_text_config(), "max_position_embeddings", LONGEST)
        return self.max_model_len or min(LONGEST, made_for)

    def identity(self) -> dict[str, Any]:
        """Everything that an answer depends on, to recognise stored answers.

        Retrained weights in the same folder count as another model; changes behind a name on the hub or behind an
        endpoint cannot be detected.
        """
        weights = weights_mark(Path(self.model)) if self.kind in LOCAL_KINDS else None
        found = {"model": self.model, "kind": self.kind, "dtype": self.dtype, "weights": weights}
        found |= asdict(self.image_size) if self.image_size else {}
        return found | ({"base_url": self.base_url} if self.base_url else {})

    def check(self) -> None:
        """Check the model's folder, or its name on the hub, before anything slow starts.

        Raises:
            ValueError: it is missing, incomplete, or not safe to open.
        """
        if self.kind in LOCAL_KINDS:
            if self.model and not Path(self.model).expanduser().is_dir() and not self.model.startswith(("/", ".", "~")):
                check_hub_name(self.model)
            check_model_folder(self.model, self.allow_pickle, self.trust_remote_code)
