"""Make torchvision and torchaudio usable with a CPU build of torch (entry point ``torch.backends``).

Both come from the package index as CUDA builds whose C extensions cannot be loaded with a CPU build of torch, and vLLM
and transformers import both.

- ``import torchvision`` fails in ``_meta_registrations.py:163`` because the operators it describes do not exist.
  Declaring the two of them is enough; nothing here calls them.
- ``import torchaudio`` fails with an OSError, although its users only catch an ImportError
  (``vllm/multimodal/audio.py:32``). It is made to raise that, because it is unusable without its extension.
"""

import importlib.util
import sys
from pathlib import Path


def adapt() -> None:
    """Called by torch at the end of ``import torch``; does nothing if torch was built for a GPU."""
    import torch

    if torch.version.cuda or torch.version.hip:
        return
    if _is_broken("torchvision", "_C.so") and not hasattr(torch, "_omniq_torchvision_schemas"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        # The schemas live as long as this object.
        torch._omniq_torchvision_schemas = library  # pyright: ignore[reportAttributeAccessIssue]  a new name
    if "torchaudio" not in sys.modules and _is_broken("torchaudio", "lib/_torchaudio.abi3.so"):
        sys.modules["torchaudio"] = None  # pyright: ignore[reportArgumentType]  documented to stop the import


def _is_broken(package: str, extension: str) -> bool:
    """Whether a package is installed with a C extension that this torch cannot load."""
    import torch

    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return False
    path = Path(spec.origin).parent / extension
    if not path.exists():
        return False
    try:
        torch.ops.load_library(path)
    except OSError:
        return True
    return False
