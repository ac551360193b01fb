"""Find a model's family: from the caller, from ``omniq.json``, from its card, or from its name. It never guesses."""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omniq_verl.families.about import About, about_model
from omniq_verl.families.evoquality import EVOQUALITY
from omniq_verl.families.family import Family
from omniq_verl.families.levels import DEQA, LEVEL_SCORER, Q_ALIGN, Q_REALIGN
from omniq_verl.families.ours import OURS
from omniq_verl.families.q_insight import Q_INSIGHT
from omniq_verl.families.unified_reward import UNIFIED_REWARD, UNIFIED_REWARD_2, UNIFIED_REWARD_THINK
from omniq_verl.families.visualquality_r1 import VISUALQUALITY_R1
from omniq_verl.families.visualscore import VISUALSCORE
from omniq_verl.generation.spec import LOCAL_KINDS, EngineSpec
from omniq_verl.tasks import Scale, Task

FAMILIES: dict[str, Family] = {
    one.name: one
    for one in (
        *(OURS, Q_INSIGHT, VISUALQUALITY_R1, EVOQUALITY, VISUALSCORE, UNIFIED_REWARD),
        *(UNIFIED_REWARD_2, UNIFIED_REWARD_THINK, Q_REALIGN, Q_ALIGN, DEQA, LEVEL_SCORER),
    )
}


def family_named(name: str) -> Family:
    """Return the family with this name.

    Raises:
        ValueError: there is no such family.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    near = get_close_matches(name, FAMILIES, 1)
    raise ValueError(f"unknown family {name!r}. Fix: use {near[0] if near else ', '.join(FAMILIES)}")


def find_family(model: str, name: str | None = None, files: bool = True) -> tuple[Family, About]:
    """Return the family of a model, and what the model states about itself.

    Args:
        model: folder, or name on a hub.
        name: name of the family; None: use ``omniq.json``, else the tags, base models and name of the model.
        files: whether to look at the model's files; False for a model behind an endpoint, which has only a name.

    Raises:
        ValueError: there is no such family, the model belongs to another one, the family is unclear, or this package
            cannot ask such a model. The message ends with a fix.
    """
    named = None if name is None else family_named(name)
    about = about_model(model, (named or Q_INSIGHT).subfolder) if files else About(model)
    # One of our models may be named after the recipe that trained it, so here the caller overrides the name.
    found = _declared_family(replace(about, name="") if named in (OURS, LEVEL_SCORER) else about)
    if named is not None and found is not None and found is not named:
        raise ValueError(
            f"{model} belongs to {found.title}, not to {named.title}, by its card or its name. Fix: family="
            f'"{found.name}", or leave the family out'
        )
    family = named or found
    if family is None:
        raise ValueError(
            f"{model} does not say which family of models it belongs to. Fix: name it, family=NAME, one of"
            f" {', '.join(FAMILIES)}"
        )
    family.check_model_type(about.model_type)
    return (published(about) if about.ours.get("family") == OURS.name else family), about


def published(about: About) -> Family:
    """Return our family with the tasks that a published model was trained for, each on its scale.

    Raises:
        ValueError: ``omniq.json`` is not valid.
    """
    try:
        if about.ours["version"] != 1:
            raise ValueError(f"version {about.ours['version']!r}")
        tasks = {one["name"]: _published_task(one) for one in about.ours["tasks"]}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{about.name}: its omniq.json is not valid ({type(error).__name__}: {error}). Fix: publish the model again"
        ) from error
    return replace(OURS, tasks=tasks)


def _published_task(record: Mapping[str, Any]) -> Task:
    task = OURS.tasks[record["name"]]
    return task if task.scale is None else replace(task, scale=Scale(*map(float, record["scale"])))


def _declared_family(about: About) -> Family | None:
    """Return the family that a model names. The longest matching mark wins, because one name may contain another."""
    if isinstance(declared := about.ours.get("family"), str):
        return family_named(declared)
    marks = about.marks
    fitting = [(len(mark), one) for one in FAMILIES.values() for mark in one.marks if mark in marks]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def as_family(spec: EngineSpec, name: str | None = None) -> tuple[EngineSpec, Family]:
    """Return the specification for opening a model, with the folder and pixel limit of its family, and the family.

    Raises:
        ValueError: see ``find_family``.
    """
    local = spec.kind in LOCAL_KINDS
    family, _ = find_family(spec.model, name, local)
    if not local:  # an endpoint sizes images itself
        return spec, family
    pixels = family.max_pixels if spec.max_pixels is None else spec.max_pixels
    return replace(spec, model=local_model(spec.model, family), max_pixels=pixels), family


def local_model(model: str, family: Family) -> str:
    """Return what an engine opens: the model itself, or its folder within a repository that holds several models."""
    if family.subfolder is None:
        return model
    folder = Path(model).expanduser()
    if folder.is_dir():
        inside = folder / family.subfolder
        return str(inside) if not (folder / "config.json").is_file() and inside.is_dir() else model
    from huggingface_hub import snapshot_download

    from omniq_verl.generation.hub import check_hub_name

    check_hub_name(model)
    return str(Path(snapshot_download(model, allow_patterns=[f"{family.subfolder}/*"])) / family.subfolder)
