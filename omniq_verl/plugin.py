"""Entry point for verl. Everything that registers itself with verl is imported only from here.

verl imports this module in every process through the entry point ``verl.plugins`` (see ``setup.py``). The module must
not import anything heavy. On a machine with GPUs it changes nothing in verl, vLLM or torch, except for what it
registers.
"""

import os
import sys
from types import ModuleType

from omniq_verl.import_hooks import after_import, once_complete


def _register() -> None:
    after_import("verl.experimental.agent_loop.single_turn_agent_loop", _register_agent_loop)
    after_import("verl.trainer.ppo.v1", _register_trainers)
    after_import("verl.workers.engine.fsdp.transformer_impl", _register_engines)
    after_import("verl.workers.rollout.base", _register_rollout)
    after_import("verl.workers.rollout.replica", _register_replica)
    if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
        from omniq_verl import cpu

        cpu.activate()


@once_complete
def _register_agent_loop(_module: object) -> None:
    import omniq_verl.trainer.seeded_agent_loop_verl  # noqa: F401  (registers itself with verl)


@once_complete
def _register_trainers(_module: object) -> None:
    import omniq_verl.trainer.trainer_verl  # noqa: F401  (registers itself with verl)


@once_complete
def _register_engines(_module: object) -> None:
    from omniq_verl.trainer.freeze_verl import register
    from omniq_verl.trainer.packed_engine_verl import PackedFSDPEngine  # registers itself with verl

    register(PackedFSDPEngine, ["cuda", "npu"])


def _register_rollout(module: ModuleType) -> None:
    # verl reads this table but has no function for adding to it (base.py:89).
    module._ROLLOUT_REGISTRY["vllm", "async"] = "omniq_verl.trainer.weight_socket_verl.ClusterServerAdapter"


def _register_replica(module: ModuleType) -> None:
    def load() -> type:
        from omniq_verl.trainer.weight_socket_verl import ClusterReplica

        return ClusterReplica

    module.RolloutReplicaRegistry.register("vllm", load)


try:
    _register()
except Exception as error:
    # verl reports a failing plug-in only at DEBUG level and continues without it.
    print(f"omniq_verl: its verl plug-in could not be loaded: {error!r}", file=sys.stderr, flush=True)
    raise
