"""Gradients of a gated update on verl's real FSDP engine; ``test_gate_engine.py`` starts one process per rank.

    python gate_engine.py MODEL FILE CASES     (RANK, WORLD_SIZE, ... in the environment)

CASES is a JSON list of {"gate": {...}, "rows": N, "padding": N, "micro": N or 0 for all, "updates": N}; FILE gets the
gradient of each case as one flat vector, FILE.json what the worker reported.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gate_rows import CLIP, KL, as_batch, masked_copy, own_entropy, plain_rows
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.config import (
    FSDPActorConfig,
    FSDPEngineConfig,
    FSDPOptimizerConfig,
    HFModelConfig,
    TrainingWorkerConfig,
)
from verl.workers.utils.losses import ppo_loss

from omniq_verl.losses.entropy_gate_verl import EntropyGateLossConfig
from omniq_verl.trainer.worker_verl import GatedTrainingWorker


def build_worker(model: str) -> GatedTrainingWorker:
    precision = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    engine = FSDPEngineConfig(
        strategy="fsdp2", dtype="float32", use_torch_compile=False, use_dynamic_bsz=False, mixed_precision=precision
    )
    model_config = HFModelConfig(
        path=model,
        override_config={"attn_implementation": "sdpa"},
        enable_gradient_checkpointing=False,
        use_remove_padding=False,
    )
    actor = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=2,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio=CLIP,
        use_kl_loss=True,
        kl_loss_coef=KL,
        policy_loss=EntropyGateLossConfig(),
        fsdp_config=engine,
        optim=FSDPOptimizerConfig(lr=1e-3),
    )
    worker = GatedTrainingWorker(
        TrainingWorkerConfig(
            model_type="language_model",
            model_config=model_config,
            engine_config=actor.engine,
            optimizer_config=actor.optim,
            checkpoint_config=actor.checkpoint,
        )
    )
    worker.reset()
    worker.set_loss_fn(partial(ppo_loss, config=actor))
    return worker


def gradient(worker: GatedTrainingWorker, batch: TensorDict, micro: int) -> tuple[np.ndarray, dict[str, Any]]:
    """The gradient that reaches the optimiser, which does not step, and what the worker reports."""
    seen: list[np.ndarray] = []

    def keep() -> float:
        full = [parameter.grad.full_tensor().flatten() for parameter in worker.engine.module.parameters()]
        seen.append(torch.cat(full).numpy())
        return 0.0

    worker.engine.optimizer_step = keep
    tu.assign_non_tensor(batch, micro_batch_size_per_gpu=micro, use_dynamic_bsz=False, global_token_num=None)
    metrics = tu.get(worker.train_batch(batch), "metrics")
    return seen[0], {name: value for name, value in metrics.items() if name.startswith("gate/")}


def share(case: dict[str, Any], model: Path) -> TensorDict:
    """This rank's rows: every WORLD_SIZE-th."""
    rows = own_entropy(model, plain_rows(model, case["rows"]))
    rows += [masked_copy(rows[0])] * case.get("padding", 0)
    return as_batch(rows[int(os.environ["RANK"]) :: int(os.environ["WORLD_SIZE"])])


def main() -> None:
    model, target, cases = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    worker = build_worker(str(model))
    found, reported = {}, []
    for number, case in enumerate(cases):
        batch = share(case, model)
        worker.gate = EntropyGateLossConfig(**case["gate"]).gate()
        worker._updates = case.get("updates", 0)
        if worker._updates:  # the entropies that came with the batch are out of date, and must not be looked at
            batch["entropy"] = batch["entropy"] * 0
        found[str(number)], metrics = gradient(worker, batch, case["micro"] or len(batch))
        reported.append(metrics)
    if os.environ["RANK"] == "0":
        np.savez(target, **found)
        target.with_suffix(".json").write_text(json.dumps(reported))


if __name__ == "__main__":
    main()
