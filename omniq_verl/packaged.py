"""Find recipes and data preparation scripts: next to this package in a checkout, inside it in a wheel."""

import re
from difflib import get_close_matches
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
HOME = _PACKAGE if (_PACKAGE / "recipes").is_dir() else _PACKAGE.parent
"""The folder with ``recipes`` and ``data_prep``; ``setup.py`` copies both into a wheel."""
RECIPES = HOME / "recipes"
SCRIPTS = HOME / "data_prep"
_PARTS = ("base/", "hardware/")
"""Folders with parts of recipes. A part is not a run by itself."""


def recipes_folder(given: Path | None) -> Path:
    """Return the folder of recipes: the given one, else ``recipes`` in the current folder, else the packaged one.

    Raises:
        ValueError: the given folder does not exist.
    """
    if given is not None and not given.is_dir():
        raise ValueError(f"there is no folder {given}. Fix: correct the path, or leave the option out to use {RECIPES}")
    here = Path("recipes")
    return given or (here if here.is_dir() else RECIPES)


def recipe_names(folder: Path) -> list[str]:
    """Return the names of a folder's recipes, as for the trainers' ``--config-name``; parts of recipes come last."""
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")]
    return sorted(names, key=lambda name: (name.startswith(_PARTS), name))


def recipe_file(folder: Path, name: str) -> Path:
    """Return the file of a recipe.

    Raises:
        ValueError: there is no recipe with that name; the message lists similar ones.
    """
    path = folder / f"{name}.yaml"
    if not name or not path.is_file():
        ours = bool(name) and (RECIPES / f"{name}.yaml").is_file()
        fix = suggestion(name, recipe_names(folder)) or "see the list of `omniq recipes`"
        fix = f"add --recipes {RECIPES}" if ours else fix
        raise ValueError(f"there is no recipe {name!r} in {folder}. Fix: {fix}")
    return path


def suggestion(name: str, known: list[str]) -> str | None:
    """Return a suggestion for a mistyped name; None if nothing is similar."""
    parts = [one for one in known if name and name in one.split("/")]
    similar = list(dict.fromkeys([*parts, *get_close_matches(name, known, 3)]))[:3]
    return f"use {', or '.join(similar)}" if similar else None


def summary(text: str) -> str:
    """Return the first sentence of the comment at the beginning of a recipe."""
    comments = [line[1:].strip() for line in text.splitlines() if line.startswith("#") and "@package" not in line]
    return re.split(r"(?<=\.) (?=[A-Z(`])", " ".join(comments))[0]


def script_names() -> list[str]:
    """Return the names of the data preparation scripts."""
    return sorted(path.stem for path in SCRIPTS.glob("*.py") if not path.stem.startswith("_"))


def script_file(name: str) -> Path:
    """Return the file of a script.

    Raises:
        ValueError: there is no script with that name; the message lists similar ones.
    """
    known = script_names()
    if name not in known:
        fix = suggestion(name, known) or f"use one of {', '.join(known)}"
        raise ValueError(f"there is no data preparation {name!r}. Fix: {fix}")
    return SCRIPTS / f"{name}.py"


def script_summary(name: str) -> str:
    """Return the first line of a script's description."""
    found = re.match(r'r?"""(.*)', script_file(name).read_text(encoding="utf-8"))
    return found[1].strip() if found else ""
