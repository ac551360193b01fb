"""Find the settings of a run that have no effect."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.problem import Problem
from omniq_verl.doctor.unread.paths import leaves

_RECORDED = Path(__file__).with_name("recorded.json")
_TRAINER_MODES = ("sync", "omniq_sync")
_HYDRA_KEYS = {"_target_", "_convert_", "_recursive_", "_partial_", "_args_"}
_REFERENCE = re.compile(r"(\.*)([A-Za-z_]\w*(?:\.\w+)*)")
# Values and keys that name user code. It may read any key, but a custom reward gets only its own settings.
_USER_CODE = re.compile(r"\.py$|^pkg://(?!omniq_verl\b)")
_USER_CODE_KEYS = re.compile(r"(_class|_lib|_module|agent_loop_config_path)$")
_REWARD = "reward.custom_reward_function."


@dataclass(frozen=True)
class Unread:
    """A setting without effect."""

    key: str
    value: Any
    explicit: bool
    """Whether the user set it on the command line."""
    known: bool
    """Whether verl has this setting."""
    instead: str | None
    """The setting that was probably meant."""

    def problem(self, run: str) -> Problem:
        """Return the problem to report; ``run`` names what ignores the setting."""
        where = f"{self.key}={self.value}"
        if not self.known:
            guess = f" (did you mean {self.instead}?)" if self.instead else ""
            return Problem(where, f"there is no such setting{guess}", "correct its name, or remove it")
        fix = f"use {self.instead}, or remove it" if self.instead else "remove it"
        return Problem(where, f"it has no effect: {run} never reads it", fix)


def check_unread(config: DictConfig, overrides: Sequence[str] = ()) -> tuple[list[Problem], list[str]]:
    """Find settings that the run ignores.

    Args:
        config: the composed configuration of ``verl.trainer.main_ppo`` or verl's SFT trainer, with interpolations.
        overrides: overrides from the command line; not needed if ``config`` has the ``hydra`` node.

    Returns:
        Problems: settings that the user gave, and names that do not exist. Notes: settings of the recipe, and settings
        that user code might still read.
    """
    trainer = "grpo" if "actor_rollout_ref" in config else "sft"
    strategy = OmegaConf.select(config, "actor_rollout_ref.actor.strategy" if trainer == "grpo" else "engine.strategy")
    recorded = _recorded()
    if strategy not in recorded[trainer]["ignored"] or not _is_recorded_run(config, trainer):
        return [], []
    if version("verl") != recorded["verl"]:
        return [], [f"settings without effect are known for verl {recorded['verl']} only, not for {version('verl')}"]
    # A DictConfig becomes a dict; OmegaConf declares one type for all kinds of nodes.
    tree: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # pyright: ignore[reportAssignmentType]
    tree.pop("hydra", None)
    given = [*overrides, *(OmegaConf.select(config, "hydra.overrides.task") or [])]
    values = {".".join(path): value for path, value in leaves(tree) if path[-1] not in _HYDRA_KEYS}
    found = list(_unread(values, _set_by(given), recorded[trainer], strategy))
    run = f"verl {recorded['verl']} with {'its SFT trainer' if trainer == 'sft' else 'GRPO, vLLM'} and {strategy}"
    read = values.keys() - {each.key for each in found}
    certain = not any(_is_user_code(key, values[key]) for key in read)
    stops = [each for each in found if certain and (each.explicit or not each.known)]
    return [each.problem(run) for each in stops], [str(each.problem(run)) for each in found if each not in stops]


@cache
def _recorded() -> dict[str, Any]:
    return json.loads(_RECORDED.read_text())


def _is_recorded_run(config: DictConfig, trainer: str) -> bool:
    if trainer == "sft":
        return True
    return (
        OmegaConf.select(config, "trainer.use_v1") is True
        and OmegaConf.select(config, "trainer.v1.trainer_mode") in _TRAINER_MODES
        and OmegaConf.select(config, "actor_rollout_ref.rollout.name") == "vllm"
    )


def _set_by(overrides: Sequence[str]) -> list[str]:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [each.key_or_group for each in parsed if not each.is_delete()]


def _is_user_code(key: str, value: Any) -> bool:
    if not isinstance(value, str) or key.startswith(_REWARD) or value.startswith("omniq_verl."):
        return False
    return bool(_USER_CODE.search(value) or _USER_CODE_KEYS.search(key))


def _unread(values: dict[str, Any], given: list[str], recorded: dict[str, Any], strategy: str) -> Iterator[Unread]:
    ignored = recorded["ignored"][strategy]
    acting = set(recorded["acting"]) - ignored.keys()
    known = acting | set(recorded["opaque"])
    used = {key for key in values if key not in ignored and not known.isdisjoint(_with_parents(key))}
    used |= _referred_to(values, used)
    for key in [each for each in values if each not in used]:
        explicit = not set(given).isdisjoint(_with_parents(key))
        default = next((each for each in _with_parents(key) if each in ignored), None)
        if default is None:
            yield Unread(key, values[key], explicit, False, _similar(key, acting))
        elif explicit or values[key] != ignored[default]:
            yield Unread(key, values[key], explicit, True, _acting_instead(key, ignored[default], acting))


def _with_parents(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _referred_to(values: dict[str, Any], used: set[str]) -> set[str]:
    """Return the keys from which used keys take their value by interpolation, directly or indirectly."""
    others = {key: set(_with_parents(key)) for key in values.keys() - used}
    waiting = list(used)
    while waiting:
        key = waiting.pop()
        if names := set(_references(key, values[key])):
            new = [each for each, parents in others.items() if not names.isdisjoint(parents)]
            waiting += new
            for each in new:
                del others[each]
    return values.keys() - used - others.keys()


def _references(key: str, value: Any) -> Iterator[str]:
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and "${" in text:
            for dots, name in _REFERENCE.findall(text):
                above = key.split(".")[: -len(dots)] if dots else []
                yield ".".join([*above, name])


def _acting_instead(key: str, default: Any, acting: set[str]) -> str | None:
    """Return the setting that has the effect an ignored one promises, if there is one.

    It is either the setting from which the ignored one takes its default, or one with the same name (possibly with its
    words in another order) in a node within or around that of the ignored setting.
    """
    for name in _references(key, default):
        if name in acting:
            return name
    words = _words(key)
    found = [each for each in acting if _is_within(words, _words(each)) or _is_within(_words(each), words)]
    return min(found, key=lambda each: (abs(len(_words(each)) - len(words)), each), default=None)


def _words(key: str) -> list[str]:
    *above, last = key.split(".")
    return [*above, "_".join(sorted(last.split("_")))]


def _is_within(some: list[str], more: list[str]) -> bool:
    remaining = iter(more)
    return some[-1] == more[-1] and all(each in remaining for each in some)


def similar_setting(key: str) -> str | None:
    """Return the setting of a GRPO or SFT run that an unknown key may be a misspelling of."""
    found = (_similar(key, set(_recorded()[trainer]["acting"])) for trainer in ("grpo", "sft"))
    return next((each for each in found if each), None)


def _similar(key: str, acting: set[str]) -> str | None:
    """Return the effective setting that an unknown key may be a misspelling of."""
    above, _, last = key.rpartition(".")
    beside = {each.rpartition(".")[2]: each for each in acting if each.rpartition(".")[0] == above}
    if close := get_close_matches(last, beside, n=1, cutoff=0.7):
        return beside[close[0]]
    elsewhere = [each for each in acting if each.rpartition(".")[2] == last]
    if elsewhere:
        return min(elsewhere, key=lambda each: (each.count("."), each))
    return next(iter(get_close_matches(key, sorted(acting), n=1, cutoff=0.85)), None)
