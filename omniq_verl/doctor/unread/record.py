"""Record which settings verl reads. Run ``python -m omniq_verl.doctor.unread.record`` after an update of verl."""

import hashlib
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from omniq_verl.doctor.unread.flow import Flow
from omniq_verl.doctor.unread.paths import Path, leaves
from omniq_verl.doctor.unread.program import Program
from omniq_verl.doctor.unread.walk import follow

RECORDED = pathlib.Path(__file__).with_name("recorded.json")
_ANALYSIS = ("calls.py", "flow.py", "paths.py", "program.py", "record.py", "walk.py")
STRATEGIES = ("fsdp", "fsdp2")
TRAINERS = ("grpo", "sft")
# verl's other engines, rollouts and trainers. Their code is reachable, too, because it is chosen by name at run time.
_OTHER_CHOICES = re.compile(
    r"verl\.("
    r"workers\.engine\.(automodel|megatron|mindspeed|torchtitan|veomni|fsdp\.fsdp_turbo_impl)"
    r"|workers\.rollout\.(sglang_rollout|trtllm_rollout|naive|hf_rollout)"
    r"|workers\.engine_workers_tinker"
    r"|trainer\.ppo\.v1\.trainer_(colocate|separate)_async"
    r"|trainer\.(main_ppo_v0|sft_trainer_ray|main_eval|main_generation_server)"
    r"|trainer\.distillation\.megatron"
    r"|experimental\.(fully_async_policy|one_step_off_policy|separation)"
    r"|models\.mcore|model_merger|utils\.megatron|utils\.megatron_utils|utils\.veomni|utils\.checkpoint\.megatron.*"
    r")(\.|$)"
)
# Rollouts of a group read no settings that verl's own agent loop does not read, and call methods of values whose types
# the analysis cannot know: every method of that name would count.
_OURS = re.compile(
    r"omniq_verl\.(attention|cpu|filters|live|losses|metric_log|rewards"
    r"|trainer(?!\.(group_rollouts|group_pixels|batched_puts)_verl))(\.|$)"
)
_DEFAULTS = {"grpo": "ppo_trainer", "sft": "sft_trainer_engine"}
_ENTRIES = {"grpo": ("verl.trainer.main_ppo", "main"), "sft": ("verl.trainer.sft_trainer", "run_sft")}
# Comparisons with these decide which branch is followed.
_ASSUMED = {
    "grpo": {"actor_rollout_ref.rollout.name": "vllm", "trainer.v1.trainer_mode": "sync"},
    "sft": {},
}
_STRATEGY_KEYS = {
    "grpo": [f"actor_rollout_ref.{role}.{part}strategy" for role in ("actor", "ref") for part in ("", "fsdp_config.")],
    "sft": ["engine.strategy"],
}


def _folder_of(package: str) -> pathlib.Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed. Fix: install it")
    return pathlib.Path(spec.origin).parent


def source_files(package: str) -> Iterator[tuple[str, pathlib.Path]]:
    """Names and files of the modules of an installed package, without importing it."""
    root = _folder_of(package)
    for path in sorted(root.rglob("*.py")):
        parts = [package, *path.relative_to(root).with_suffix("").parts]
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def sources() -> list[tuple[str, pathlib.Path]]:
    """The modules that may see the configuration of a run with FSDP, vLLM and the synchronous trainer."""
    verl = [each for each in source_files("verl") if not _OTHER_CHOICES.match(each[0])]
    return verl + [each for each in source_files("omniq_verl") if _OURS.match(each[0])]


def digest() -> str:
    """A checksum of verl's part of the sources, and of the analysis."""
    paths = [path for name, path in sources() if name.startswith("verl")]
    found = hashlib.sha256()
    for path in [*paths, *(pathlib.Path(__file__).with_name(name) for name in _ANALYSIS)]:
        found.update(path.read_bytes())
    return found.hexdigest()


def default_tree(trainer: str) -> dict[str, Any]:
    """verl's default configuration, with unresolved interpolations."""
    with initialize_config_dir(str(_config_folder()), version_base=None):
        # A DictConfig becomes a dict; OmegaConf declares one type for all kinds of nodes.
        return OmegaConf.to_container(compose(_DEFAULTS[trainer]), resolve=False)  # pyright: ignore[reportReturnType]


def _config_folder() -> pathlib.Path:
    return _folder_of("verl") / "trainer" / "config"


def analyse(program: Program, trainer: str, strategy: str, tree: Mapping[str, Any]) -> Flow:
    """Follow the configuration of a run through the program."""
    assumed = _ASSUMED[trainer] | dict.fromkeys(_STRATEGY_KEYS[trainer], strategy)
    types = {path[:-1]: str(value).rpartition(".")[2] for path, value in leaves(tree) if path[-1] == "_target_"}
    flow = Flow(program, tree, types, {tuple(key.split(".")): value for key, value in assumed.items()})
    module, name = _ENTRIES[trainer]
    (entry,) = [each for each in program.functions[name] if each.module.name == module]
    follow(flow, entry, entry.parameters[0])
    return flow


def summarise(flow: Flow, tree: Mapping[str, Any]) -> tuple[set[Path], set[Path], dict[Path, Any]]:
    """Summarise the result of an analysis.

    Returns:
        The keys that are read; the nodes whose keys all count as read; and the unread keys of verl's defaults with
        their values.
    """
    defaults = {path: value for path, value in leaves(tree) if path[-1] != "_target_"}
    read = {node.path for node in flow.read if not (node in flow.written and node.path in defaults)}
    opaque = {node.path for node in flow.whole if node.path in flow.mappings}
    # Hydra uses these to choose a file; no code needs to read them.
    groups = {(path.name,) for path in _config_folder().iterdir() if path.is_dir()}
    acting = {path for path in defaults if path in read | groups or not opaque.isdisjoint(_above(path))}
    unknown = {path for path in read - defaults.keys() - flow.mappings if path[:-1] in flow.mappings}
    acting |= {path for path in unknown if len(path) > 1 and path[-1].isidentifier() and path[-1][0] != "_"}
    return acting, opaque, {path: value for path, value in defaults.items() if path not in acting}


def _above(path: Path) -> list[Path]:
    return [path[:length] for length in range(1, len(path))]


def _joined(paths: Iterable[Path]) -> list[str]:
    return sorted(".".join(path) for path in paths)


def record(trainers: Sequence[str] = TRAINERS, strategies: Sequence[str] = STRATEGIES) -> dict[str, Any]:
    """All that the check of a run needs, by trainer. A key that only one strategy ignores counts as read."""
    program = Program(sources())
    found: dict[str, Any] = {"verl": version("verl"), "digest": digest()}
    for trainer in trainers:
        tree = default_tree(trainer)
        results = {each: summarise(analyse(program, trainer, each, tree), tree) for each in strategies}
        found[trainer] = {
            "acting": _joined(set().union(*(acting for acting, _, _ in results.values()))),
            "opaque": _joined(set().union(*(opaque for _, opaque, _ in results.values()))),
            "ignored": {
                strategy: {".".join(path): value for path, value in sorted(ignored.items())}
                for strategy, (_, _, ignored) in results.items()
            },
        }
    return found


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(record(), indent=1) + "\n")
