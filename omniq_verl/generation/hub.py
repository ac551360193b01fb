"""Check within seconds, before an engine starts, whether a name that is not a folder is a known model."""

import os
from pathlib import Path

_SECONDS = 10


def check_hub_name(model: str) -> None:
    """Look for a model that is not a local folder, in the cache and then on the hub.

    Args:
        model: name on a hub, ``owner/name`` or ``name``; a mistyped path can look like one.

    Raises:
        ValueError: the model does not exist, or the hub cannot be reached and the cache does not have it.
    """
    first, *others = Path(model).parts or ("",)
    if len(others) > 1 or (others and Path(first).is_dir()):
        raise ValueError(f"{model}: there is no such folder. Fix: correct the path; see `ls {first}`")
    if os.environ.get("VLLM_USE_MODELSCOPE"):  # names on another hub
        return
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        if isinstance(try_to_load_from_cache(model, "config.json"), str):
            return
    except HFValidationError:
        raise ValueError(
            f"{model!r} is neither a folder nor a name on the Hugging Face hub. Fix: correct the path"
        ) from None
    if why := _not_at_hub(model):
        raise ValueError(f"{model}: there is no such folder, and {why}. Fix: correct the path or the name")


def _not_at_hub(model: str) -> str | None:
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if HF_HUB_OFFLINE:
        return "the cache has no model of this name (HF_HUB_OFFLINE is set)"
    try:
        HfApi().model_info(model, timeout=_SECONDS)
    except GatedRepoError:
        return "access to the model of this name on the Hugging Face hub has not been granted"
    except RepositoryNotFoundError:
        return "the Hugging Face hub has no model of this name that you may see"
    except Exception as error:  # whatever its HTTP library raises
        return f"the Hugging Face hub cannot be asked for this name ({type(error).__name__})"
    return None
