"""Log-probabilities and gradients by verl's real FSDP engine; ``test_packed_engine.py`` starts a process per rank.

    python packed_engine.py MODEL FILE CASES     (RANK, WORLD_SIZE, ... in the environment)

CASES is a JSON list of {"rows": name, "packed": bool, "checkpointing": bool, "micro": rows or 0, "tokens": N or 0,
"shared": bool}.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packed_rows import as_batch, build_rows
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import (
    FSDPEngineConfig,
    FSDPOptimizerConfig,
    HFModelConfig,
    TrainingWorkerConfig,
)
from verl.workers.engine_workers import TrainingWorker

RANK, RANKS = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def build_engine(
    model: str,
    packed: bool,
    checkpointing: bool,
    use_remove_padding: bool | None = None,
    ulysses_sequence_parallel_size: int = 1,
) -> Any:
    precision = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    settings = {"strategy": "fsdp2", "dtype": "float32", "use_torch_compile": False, "mixed_precision": precision}
    settings["ulysses_sequence_parallel_size"] = ulysses_sequence_parallel_size
    worker = TrainingWorker(
        TrainingWorkerConfig(
            model_type="language_model",
            model_config=HFModelConfig(
                path=model,
                override_config={"attn_implementation": "omniq_varlen" if packed else "sdpa"},
                enable_gradient_checkpointing=checkpointing,
                use_remove_padding=packed if use_remove_padding is None else use_remove_padding,
            ),
            engine_config=FSDPEngineConfig(**settings),
            optimizer_config=FSDPOptimizerConfig(lr=1e-3, total_training_steps=1),
            checkpoint_config=CheckpointConfig(),
        )
    )
    worker.reset()
    return worker.engine


def weighted_sum(model_output: dict[str, Any], data: Any, dp_group: Any) -> tuple[torch.Tensor, dict]:
    """A loss that every answer's token enters with a weight of its own; FSDP takes the mean over ranks."""
    weights = data["weights"].values()
    log_probs, entropy = (model_output[key].values() for key in ("log_probs", "entropy"))
    return RANKS * (weights @ log_probs + 0.1 * weights @ entropy), {}


def run(engine: Any, rows: list[dict[str, Any]], micro: int, tokens: int, shared: bool) -> dict[str, np.ndarray]:
    seen: list[np.ndarray] = []

    def keep() -> float:
        full = [parameter.grad.full_tensor().flatten() for parameter in engine.module.parameters()]
        seen.append(torch.cat(full).numpy())
        return 0.0

    engine.optimizer_step = keep
    own = rows[RANK::RANKS]
    batch = as_batch(own, micro, tokens, shared)
    tu.assign_non_tensor(batch, use_remove_padding=engine.use_remove_padding)
    with engine.eval_mode():
        output = engine.infer_batch(batch)["model_output"]
    engine.tokens = (0, 0)
    with engine.train_mode():
        engine.train_batch(batch, weighted_sum)
    return {
        "tokens": np.array(engine.tokens),
        "gradient": seen[0],
        "log_probs": torch.cat(answered([row[:-1] for row in output["log_probs"].unbind()], own, shared)).numpy(),
        "entropy": torch.cat(answered(output["entropy"].unbind(), own, shared)).numpy(),
    }


def answered(values: Any, rows: list[dict[str, Any]], shared: bool) -> list[torch.Tensor]:
    """With shared prompts, the values at the tokens that predict an answer's: elsewhere there are none."""
    if not shared:
        return list(values)
    spans = [(len(row["prompts"]) - 1, len(row["responses"])) for row in rows]
    return [value[start : start + length] for value, (start, length) in zip(values, spans, strict=True)]


def main() -> None:
    model, target, cases = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    engines: dict[tuple[bool, bool], Any] = {}
    found: dict[str, np.ndarray] = {}
    for number, case in enumerate(cases):
        kind = (case["packed"], case["checkpointing"])
        engines[kind] = engines.get(kind) or build_engine(model, *kind)
        rows = build_rows(Path(model), case["rows"])
        for name, values in run(engines[kind], rows, case["micro"], case["tokens"], case["shared"]).items():
            found[f"{number}/{name}"] = values
    np.savez(target.with_suffix(f".{RANK}.npz"), **found)


if __name__ == "__main__":
    main()
