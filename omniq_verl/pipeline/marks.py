"""What a finished stage was made from: settings, data and code. A mark that differs from today's is out of date.

``marks/<stage>.json`` below the root holds a mark from the moment a stage begins, so that what it leaves unfinished is
resumed only under the same conditions.
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from xxhash import xxh3_128

from omniq_verl.data.files import replace_text
from omniq_verl.generation.provenance import versions
from omniq_verl.packaged import RECIPES, SCRIPTS
from omniq_verl.pipeline.stage import Stage

PACKAGE = Path(__file__).resolve().parents[1]
_OVERRIDE = "override "


@dataclass(frozen=True)
class Mark:
    """The conditions of a stage, and how far it is."""

    settings: str
    """Changes with the stage's command, environment and recipe, and with those of every stage it needs."""
    data: str
    """Changes with the files outside of the root that the stage or one that it needs reads."""
    code: str
    """Changes with this package, its recipes and scripts, and the versions of the packages that figures depend on."""
    done: bool = False
    seconds: float = 0.0
    """How long its last start took."""


def marks_of(stages: Sequence[Stage], need: Mapping[str, Sequence[str]]) -> dict[str, Mark]:
    """Today's mark of every stage, by name.

    Args:
        stages: of a pipeline, in order.
        need: of ``stage.needs``.
    """
    found: dict[str, Mark] = {}
    for stage in stages:
        before = [found[name] for name in need[stage.name]]
        own = [stage.command, stage.environment, recipe_digests(stage.command)]
        settings = _digest([*own, [mark.settings for mark in before]])
        data = _digest([[_listing_of(path) for path in stage.reads], [mark.data for mark in before]])
        found[stage.name] = Mark(settings, data, code_digest())
    return found


def _digest(what: Any) -> str:
    return xxh3_128(json.dumps(what).encode(errors="surrogatepass")).hexdigest()[:16]


def mark_path(root: Path, name: str) -> Path:
    """The file of a stage's mark."""
    return root / "marks" / f"{name}.json"


def read_mark(root: Path, name: str) -> Mark | None:
    """The mark that a stage's last start left; None if there is none that can be read."""
    try:
        return Mark(**json.loads(mark_path(root, name).read_bytes()))
    except (OSError, ValueError, RecursionError, TypeError):
        return None


def write_mark(root: Path, name: str, mark: Mark) -> None:
    """Replace a stage's mark at once."""
    path = mark_path(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(asdict(mark)) + "\n")


def differences(mark: Mark, today: Mark) -> list[str]:
    """Which of ``settings``, ``data`` and ``code`` differ between a saved mark and today's."""
    return [name for name in ("settings", "data", "code") if getattr(mark, name) != getattr(today, name)]


def renewed(mark: Mark, code: str) -> Mark:
    """The mark of a stage whose other code is accepted."""
    return replace(mark, code=code)


def recipe_digests(command: Sequence[str]) -> list[str]:
    """Digests of the recipe that a command of verl's trainers names, and of those it is made of, without comments."""
    if "--config-dir" not in command or "--config-name" not in command:
        return []
    folder, ref = Path(command[command.index("--config-dir") + 1]), command.index("--config-name") + 1
    return [_digest(_recipe(path)) for path in recipe_files(folder, command[ref], command[ref + 1 :])]


def recipe_files(folder: Path, name: str, words: Sequence[str] = ()) -> list[Path]:
    """The file of a recipe and of everything in its ``defaults``, as far as they are in this folder.

    Args:
        folder: with all recipes.
        name: of the recipe, below the folder.
        words: overrides of the command. ``group=name`` replaces a recipe of ``defaults``, ``+group=name`` adds one.
    """
    pairs = [(key, value) for key, _, value in (word.partition("=") for word in words)]
    added = [f"{_group(key)}/{value}" for key, value in pairs if key.startswith("+")]
    given = {_group(key): value for key, value in pairs}
    return [file for part in (name, *added) for file in _files_of(folder, part, given)]


def _files_of(folder: Path, name: str, given: Mapping[str, Any]) -> list[Path]:
    path = folder / f"{name}.yaml"
    if not path.is_file():
        return []
    recipe = _recipe(path)
    defaults = recipe.get("defaults", []) if isinstance(recipe, dict) else []
    pairs = [pair for entry in defaults if isinstance(entry, dict) for pair in entry.items()]
    given = {**{_group(key): value for key, value in pairs if key.startswith(_OVERRIDE)}, **given}
    parts = [part for entry in defaults for part in _named(entry, given)]
    return [path, *(file for part in parts for file in _files_of(folder, part, given))]


def _named(entry: Any, given: Mapping[str, Any]) -> list[str]:
    """The recipes that an entry of ``defaults`` names: ``/base/sft``, or ``/base: sft`` with one name or several."""
    if isinstance(entry, str):
        return [] if entry == "_self_" else [_group(entry)]
    found = []
    for key, value in entry.items():
        chosen = given.get(_group(key), value)
        if not key.startswith(_OVERRIDE):  # what is overridden stands elsewhere in the defaults
            found += [f"{_group(key)}/{one}" for one in (chosen if isinstance(chosen, list) else [chosen])]
    return found


def _group(key: str) -> str:
    """The group in a key of Hydra's, without what stands around it: ``override /base@trainer`` is ``base``."""
    return key.removeprefix(_OVERRIDE).removeprefix("optional ").partition("@")[0].lstrip("+/")


def _recipe(path: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)


def _listing_of(path: Path) -> list[Any]:
    """Name, size and time of change of a file, or of all files below a folder: contents are not read."""
    digest, count = xxh3_128(), 0
    for name, size, changed in sorted(_files(path)):
        digest.update(f"{name}\0{size}\0{changed}\n".encode(errors="surrogatepass"))
        count += 1
    return [str(path), count, digest.hexdigest()]


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    todo = [str(path)]
    while todo:
        here = todo.pop()
        try:
            about = os.stat(here)
        except OSError:
            continue
        if not stat.S_ISDIR(about.st_mode):
            yield os.path.relpath(here, path), about.st_size, about.st_mtime_ns
            continue
        with os.scandir(here) as entries:
            todo += [entry.path for entry in entries if not (entry.is_symlink() and entry.is_dir())]


@cache
def code_digest(package: Path = PACKAGE, recipes: Path = RECIPES, scripts: Path = SCRIPTS) -> str:
    """Digest of this package's sources, recipes and scripts of data preparation, and of the versions it runs with."""
    digest = xxh3_128(json.dumps(versions(), sort_keys=True).encode())
    for folder, pattern in ((package, "**/*.py"), (recipes, "**/*.yaml"), (scripts, "*.py")):
        for path in sorted(folder.glob(pattern)):
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
