"""The experiments by name and scale."""

import re
from collections.abc import Sequence
from pathlib import Path

from omniq_verl.packaged import HOME
from omniq_verl.pipeline import findings, omniquality_r, q_insight, ract, rali
from omniq_verl.pipeline.experiment import Experiment

TINY = {
    "omniquality_r": omniquality_r.tiny,
    "q_insight": q_insight.tiny,
    "ract": ract.tiny,
    "rali": rali.tiny,
    "findings": findings.tiny,
}
SCALES = ("tiny", "paper")
_LARGEST_SEED = 2**32 - 1
"""The largest that NumPy's older generator takes, which verl and transformers use."""
_PLAIN = re.compile(r"[\w/.+@%-]+", re.ASCII)


def build(name: str, scale: str, root: Path, seeds: Sequence[int], data: Path | None, model: str | None) -> Experiment:
    """An experiment with all its stages; nothing is run.

    Args:
        name: one of ``TINY``.
        scale: one of ``SCALES``.
        root: folder of the run.
        seeds: one or more, each once.
        data: folder with the data sets of their owners, for the scale ``paper``.
        model: base model, for the scale ``paper``; None: the paper's.

    Raises:
        ValueError: an unknown name or scale, no or equal seeds, what the scale does not take, or a folder or a model
            whose name Hydra would not read as it is.
    """
    if name not in TINY:
        raise ValueError(f"there is no experiment {name!r}. Fix: use one of {', '.join(TINY)}")
    if scale not in SCALES:
        raise ValueError(f"there is no scale {scale!r}. Fix: use --scale tiny or --scale paper")
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) > _LARGEST_SEED:
        raise ValueError(
            f"seeds are {list(seeds)}. Fix: name one or more whole numbers from 0 to {_LARGEST_SEED}, each once"
        )
    _check_plain(str(root.resolve()), "give another --out")
    if scale == "tiny":
        if data is not None or model is not None:
            raise ValueError("--data and --model have no effect with --scale tiny. Fix: leave them out")
        return TINY[name](HOME, root.resolve(), tuple(seeds))
    from omniq_verl.pipeline.paper import experiments as paper

    if name not in paper.PAPERS:
        raise ValueError(f"{name} has no scale paper. Fix: use --scale tiny, or `omniq {name}` on your own models")
    if model is not None:
        folder = Path(model).expanduser()
        model = str(folder.resolve()) if folder.is_dir() else model
        _check_plain(model, "link the model's folder under a name")
    return paper.build(name, HOME, root.resolve(), tuple(seeds), data, model)


def _check_plain(path: str, fix: str) -> None:
    if not _PLAIN.fullmatch(path):
        raise ValueError(
            f"{path} has characters that are not allowed in training settings. Fix: {fix}, of letters, digits and"
            " / . _ - + @ %"
        )
