"""Settings that packed attention does not support; the engine rejects them only after Ray and the workers have started.

verl has two keys for sequence parallelism (Ulysses). If the deprecated one is above 1, it replaces the other
(``verl/workers/config/actor.py``, ``FSDPActorConfig.__post_init__``).
"""

from collections.abc import Iterator, Sequence

from omegaconf import DictConfig, OmegaConf

from omniq_verl.doctor.problem import Problem

PACKED = "omniq_varlen"
"""``attention.transformers_attention.NAME``, whose module imports torch."""
_SIZE = "ulysses_sequence_parallel_size"


def sequence_parallel_size(config: DictConfig, role: str = "actor") -> int:
    """Number of GPUs that share each sequence in the engine of ``actor`` or ``ref``."""
    present, deprecated = (_size(config, key) for key in _keys(role))
    return deprecated if deprecated > 1 else present


def packing_faults(config: DictConfig) -> Iterator[Problem]:
    """Faults of a run of reinforcement learning with packed attention."""
    keys = list(_keys("actor"))
    has_reference = ("actor_rollout_ref.actor.use_kl_loss", "algorithm.use_kl_in_reward")
    if any(OmegaConf.select(config, key) for key in has_reference):
        keys += [key for key in _keys("ref") if not _follows_actor(config, key)]
    yield from _faults(config, "actor_rollout_ref.model", keys)


def sft_packing_faults(config: DictConfig) -> Iterator[Problem]:
    """As ``packing_faults``, of a configuration of verl's SFT trainer."""
    yield from _faults(config, "model", [f"engine.{_SIZE}"])


def _faults(config: DictConfig, model: str, sizes: Sequence[str]) -> Iterator[Problem]:
    attention = f"{model}.override_config.attn_implementation"
    if OmegaConf.select(config, attention) != PACKED:
        return
    for key in sizes:
        if (size := _size(config, key)) > 1:
            what = f"is {size}, and {attention}={PACKED} has no sequence parallelism"
            fix = f"set it to 1, or install flash-attn and set {attention}=flash_attention_2"
            yield Problem(key, what, fix)
    packed = f"{model}.use_remove_padding"
    if not OmegaConf.select(config, packed):
        what = f"is {OmegaConf.select(config, packed)}, and {attention}={PACKED} is for sequences without padding"
        yield Problem(packed, what, f"set {packed}=true")


def _keys(role: str) -> tuple[str, str]:
    section = f"actor_rollout_ref.{role}"
    return f"{section}.fsdp_config.{_SIZE}", f"{section}.{_SIZE}"


def _size(config: DictConfig, key: str) -> int:
    return OmegaConf.select(config, key) or 1


def _follows_actor(config: DictConfig, key: str) -> bool:
    """Whether the value is only the actor's, as by default: one fault is enough."""
    section, _, name = key.rpartition(".")
    found = OmegaConf.select(config, section)
    return isinstance(found, DictConfig) and name in found and OmegaConf.is_interpolation(found, name)
