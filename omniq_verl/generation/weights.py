"""Compare the weights in a model's files with what its configuration needs, without loading them.

transformers fills every tensor that it does not find with random numbers and only logs a warning; vLLM does so for the
missing part of a fused tensor. Such a model answers, and its scores look plausible. Code that opens a model therefore
calls ``check_weights`` first, and ``check_loaded`` after transformers has loaded it.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omniq_verl.lfs import BadFile, check_no_pointer

if TYPE_CHECKING:
    import torch

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Endings of files that hold weights as pickles."""
_PICKLED, _PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_FILE_NAME = re.compile(r"[\w.=+-]{1,200}")
_ADAPTERS = ("adapter_config.json", "adapter_model.")
_SHOWN = 3
_DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
}
"""Dtypes by their names in safetensors headers. Any other dtype, such as FP8, belongs to a quantised tensor."""
_COPY = "copy or download the model again, with all its files"
_MERGE = "merge the adapter into its base model (merge_and_unload of peft) and save the result as a separate model"


class BadWeights(BadFile):
    """A model's files do not contain the weights that its configuration needs."""


Stored = dict[str, "torch.Tensor"]
"""Tensors on the meta device (shapes without values), by their names in the files."""


def check_weights(model: str | Path, trust_remote_code: bool = False) -> None:
    """Check that every tensor of a local model is in its files, with the shape stated in ``config.json``.

    Only headers are read, which takes a second for a model of any size. Quantised models are checked only for tensors
    that have their original names.

    Args:
        model: Hugging Face folder. The name of a hub model is not checked; see ``check_loaded``.
        trust_remote_code: build the model with Python code from its folder.

    Raises:
        BadWeights: a tensor is missing or has another shape, or a file is missing or unreadable.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return
    check_no_adapter(folder)
    stored = read_stored(folder)
    if fault := _fault(folder, stored, trust_remote_code):
        raise BadWeights(str(model), *fault)


def check_cached(model: str, trust_remote_code: bool = False) -> None:
    """Check a hub model as ``check_weights`` does, after it has been downloaded.

    A model that is not in Hugging Face's cache passes.

    Raises:
        BadWeights: see ``check_weights``.
    """
    from huggingface_hub import snapshot_download

    if Path(model).is_dir():
        return
    try:
        folder = snapshot_download(model, local_files_only=True)
    except Exception:  # it came from elsewhere, e.g. ModelScope
        return
    check_weights(folder, trust_remote_code)


def check_loaded(model: str | Path, info: Mapping[str, Iterable[Any]]) -> None:
    """Check transformers' report about a model that it has loaded.

    Args:
        model: the model's folder or name.
        info: the loading info from ``from_pretrained(..., output_loading_info=True)``.

    Raises:
        BadWeights: transformers has filled a tensor with random numbers.
    """
    if fault := _describe(info["missing_keys"], info["mismatched_keys"]):
        raise BadWeights(str(model), *fault)


def check_no_adapter(folder: Path) -> None:
    """Check that a folder has no LoRA adapter, with or without other weights.

    transformers would apply the adapter to those weights, but vLLM would not.

    Raises:
        BadWeights: it has one.
    """
    if found := next((path.name for path in sorted(folder.glob("adapter_*")) if path.name.startswith(_ADAPTERS)), None):
        raise BadWeights(str(folder), f"it holds a LoRA adapter ({found}), not a whole model", _MERGE)


# Files


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers would load: one, or those in an index.

    Raises:
        BadWeights: there are none, one is missing, or the folder also holds shards of another model.
    """
    names = needed = _named_files(folder)
    if names == [SINGLE] and (folder / INDEX).is_file():
        needed = [SINGLE, *_indexed_files(folder / INDEX)]  # vLLM uses the index, transformers the single file
    if lacking := [name for name in needed if not (folder / name).is_file()]:
        what = f"{lacking[0]} is missing" + (f", and {len(lacking) - 1} more files" if lacking[1:] else "")
        raise BadWeights(str(folder), f"the folder lacks its weights ({what})", _COPY)
    stray = sorted(path.name for path in folder.glob("*.safetensors") if _SHARD.fullmatch(path.name))
    if stray := [name for name in stray if name not in names]:
        what = f"{stray[0]} does not belong to {names[0]}, and vLLM and transformers choose between them differently"
        raise BadWeights(str(folder), what, "remove the files that are not the model's, or save it into a new folder")
    return [folder / name for name in names]


def _named_files(folder: Path) -> list[str]:
    for single, index in ((SINGLE, INDEX), (_PICKLED, _PICKLED_INDEX)):
        if (folder / single).is_file():
            return [single]
        if (folder / index).is_file():
            return _indexed_files(folder / index)
    if shards := sorted(path.name for path in folder.glob("*.safetensors")):
        raise BadWeights(str(folder), f"it has {shards[0]}, but neither {SINGLE} nor {INDEX}", _COPY)
    if others := sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED):  # vLLM reads these
        return others
    raise BadWeights(str(folder), f"the folder lacks its weights (there is no {SINGLE})", _COPY)


def _indexed_files(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadWeights(str(index), f"it cannot be read ({error!r})", _COPY) from error
    if wrong := next((name for name in names if not _is_file_name(name)), None):
        raise BadWeights(str(index), f"it names the file {str(wrong)[:60]!r}, which is not a name of weights", _COPY)
    return names


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and _FILE_NAME.fullmatch(name) is not None


def read_stored(folder: Path) -> Stored:
    """Every tensor in a model's files. Only headers are read, and no pickle is executed.

    Raises:
        BadWeights: a file is missing, damaged, or shorter than its header states.
    """
    stored: Stored = {}
    for path in weight_files(folder):
        check_no_pointer(path)
        try:
            stored.update(_read_header(path) if path.suffix == ".safetensors" else _read_pickled(path))
        except Exception as error:  # safetensors and torch raise errors of many kinds on damaged files
            what = f"the weights cannot be read ({type(error).__name__}: {str(error).splitlines()[0]})"
            raise BadWeights(str(path), what, f"{_COPY}; this one is broken or incomplete") from error
    return stored


def _read_header(path: Path) -> Stored:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return {name: _empty(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118


def _empty(part: Any) -> "torch.Tensor":
    import torch

    dtype = getattr(torch, _DTYPES.get(part.get_dtype(), "uint8"))
    return torch.empty(part.get_shape(), dtype=dtype, device="meta")


def _read_pickled(path: Path) -> Stored:
    import torch

    found = torch.load(path, map_location="meta", weights_only=True)
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


# Comparison


def _fault(folder: Path, stored: Stored, trust_remote_code: bool) -> tuple[str, str] | None:
    """What is wrong with the weights, and how to fix it."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises errors of many kinds, KeyError among them
        return f"config.json cannot be read ({str(error).splitlines()[0]})", _COPY
    quantised = hasattr(config, "quantization_config")
    if quantised:  # its quantiser would need a GPU and further packages
        del config.quantization_config  # pyright: ignore[reportAttributeAccessIssue]  only quantised ones have it
    try:
        info = _load_on_meta(config, stored, trust_remote_code)
    except Exception as error:
        if quantised:
            return None  # fused tensors of a quantised model cannot be assembled on the meta device
        return f"the weights do not fit config.json ({str(error).splitlines()[0]})", _COPY
    missing, mismatched = info["missing_keys"], info["mismatched_keys"]
    if quantised:
        packed = _modules(info["unexpected_keys"])  # modules with scales, zeros or packed numbers
        missing = {name for name in missing if name.rpartition(".")[0] not in packed}
        mismatched = {each for each in mismatched if each[0].rpartition(".")[0] not in packed}
    return _describe(missing, mismatched, stored) or _too_few_layers(info)


def _modules(names: Iterable[str]) -> set[str]:
    """Every module that contains these tensors."""
    parts = [name.split(".") for name in names]
    return {".".join(each[:length]) for each in parts for length in range(1, len(each))}


def _load_on_meta(config: Any, stored: Stored, trust_remote_code: bool) -> dict[str, Any]:
    """transformers' report on loading these tensors; its own code renames, ties and ignores some."""
    with _quiet():
        model, info = _model_class(config, trust_remote_code).from_pretrained(
            None,
            config=config,
            state_dict=dict(stored),
            device_map={"": "meta"},
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    return info | {"expected": set(model.state_dict())}


def _model_class(config: Any, trust_remote_code: bool) -> Any:
    """The class with which verl, and this package, open a model of this configuration."""
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

    kinds = (AutoModelForImageTextToText, AutoModelForCausalLM, AutoModel)
    known = next((kind for kind in kinds if type(config) in kind._model_mapping), None)
    own = next((kind for kind in kinds if kind.__name__ in getattr(config, "auto_map", ())), None)
    if known and not (own and trust_remote_code):
        found = known._model_mapping[type(config)]
        return found[0] if isinstance(found, (list, tuple)) else found
    with torch.device("meta"):
        return type((own or AutoModel).from_config(config, trust_remote_code=trust_remote_code))


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress transformers' progress bar and log."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _describe(
    missing: Iterable[str], mismatched: Iterable[tuple[str, Any, Any]], stored: Iterable[str] = ()
) -> tuple[str, str] | None:
    missing, mismatched = sorted(missing), sorted(mismatched, key=lambda each: each[0])
    parts = []
    if missing:
        parts.append(f"{_count(missing, 'tensor')} missing from its files ({_some(missing)})")
    if mismatched:
        shown = [f"{name}: {list(there)} instead of {list(wanted)}" for name, there, wanted in mismatched]
        parts.append(f"{_count(mismatched, 'tensor')} of another shape than in config.json ({_some(shown)})")
    if not parts:
        return None
    adapted = any("lora_" in name or ".base_layer." in name or name.startswith("base_model.") for name in stored)
    return f"{' and '.join(parts)}; random numbers would replace them", _MERGE if adapted else _COPY


def _count(found: list[Any], noun: str) -> str:
    return f"1 {noun} is" if len(found) == 1 else f"{len(found):,} {noun}s are"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if names[_SHOWN:] else "")


def _too_few_layers(info: Mapping[str, Any]) -> tuple[str, str] | None:
    """Report layers in the files that config.json lacks: without them it would be another model."""
    known = Counter(map(_pattern, info["expected"]))
    more = sorted(name for name in info["unexpected_keys"] if _pattern(name) in known and re.search(r"\.\d+\.", name))
    if not more:
        return None
    what = f"{_count(more, 'tensor')} in its files that config.json has no layer for ({_some(more)})"
    return what, "correct the number of layers in config.json, or save the model again"


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "*", name)
