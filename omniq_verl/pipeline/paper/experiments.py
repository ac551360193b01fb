"""The experiments at full size, with the data sets that are available."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

from omniq_verl.pipeline.data_status import MISSING, PARTLY, Found, survey
from omniq_verl.pipeline.experiment import Experiment
from omniq_verl.pipeline.paper import omniquality_r, q_insight, ract, rali
from omniq_verl.pipeline.paper.shared_stages import QWEN_7B, Real
from omniq_verl.pipeline.stage import MissingData, Stage

PAPERS: dict[str, ModuleType] = {"omniquality_r": omniquality_r, "q_insight": q_insight, "ract": ract, "rali": rali}


def build(
    name: str, repo: Path, root: Path, seeds: tuple[int, ...], data: Path | None, model: str | None
) -> Experiment:
    """An experiment on the data sets below a folder; those that are only tested on may be missing.

    Args:
        name: one of ``PAPERS``.
        repo: folder with ``recipes`` and ``data_prep``.
        root: folder of the run.
        seeds: one or more.
        data: folder with the data sets of their owners; None: a plan as if all were there.
        model: base model; None: Qwen2.5-VL-7B.

    Raises:
        MissingData: a data set that is trained on is not below ``data``.
    """
    paper = PAPERS[name]
    found = [] if data is None else survey(data)
    folders = {one: Path("DATA") / one for one in paper.OPTIONS} if data is None else folders_of(found)
    if data is not None and (missing := [one for one in paper.TRAINED_ON if one not in folders]):
        raise MissingData(
            f"{data}: {', '.join(missing)} not found, needed for training. Fix: download them"
            f" (omniq data status --data {data} names their pages and layouts)"
        )
    run = Real(repo, root, folders, model or QWEN_7B, seeds, paper.OPTIONS)
    missing = [one for one in paper.OPTIONS if one not in folders]
    partly = [one for one in found if one.state == PARTLY and one.about.name in paper.OPTIONS]
    return with_missing(with_model(paper.experiment(run), run.model), missing, partly)


def folders_of(found: list[Found]) -> dict[str, Path]:
    """Folders of the data sets that are there, wholly or partly, by name."""
    return {one.about.name: one.folder for one in found if one.state != MISSING and one.folder is not None}


def with_model(found: Experiment, model: str) -> Experiment:
    """The experiment whose stages notice if other weights are put into the base model's folder."""
    folder = Path(model)
    if not folder.is_dir():  # a name on the hub
        return found
    stages = [replace(one, reads=(*one.reads, folder)) if _names(one, model) else one for one in found.stages]
    return replace(found, stages=stages)


def _names(stage: Stage, model: str) -> bool:
    return any(model in (word, word.partition("=")[2]) for word in stage.command)


def with_missing(found: Experiment, missing: list[str], partly: list[Found]) -> Experiment:
    """The experiment with lines in its tables about data sets that are not there, or only in part."""
    notes = dict(found.not_run)
    if missing:
        notes["data"] = f"not below --data, and so not measured: {', '.join(missing)}"
    if partly:
        parts = "; ".join(f"{one.about.name} ({', '.join(one.missing)})" for one in partly)
        notes["data in part"] = f"measured on what is there; missing are {parts}"
    return replace(found, not_run=notes)
