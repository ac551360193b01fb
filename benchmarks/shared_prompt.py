"""Measures what shared prompts save: the actor's forward passes and update with and without them, in one process.

    python benchmarks/shared_prompt.py                        # two minutes on two CPU cores
    python benchmarks/shared_prompt.py --groups 4 --answers 16 --answer-tokens 40

verl's real FSDP2 engine trains a small random Qwen2.5-VL on groups of answers. Each measurement runs both ways in turn
and prints the ratio of their medians next to the bound, the ratio of the tokens that pass through the model. The bound
holds for large models; here attention, the optimiser and Python also take time.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
SIDE = 160  # side of a square image in pixels: 100 tokens


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=2, help="prompts in the batch")
    parser.add_argument("--answers", type=int, default=16, help="answers to each prompt")
    parser.add_argument("--answer-tokens", type=int, default=40, help="mean length of an answer")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each way")
    return parser.parse_args()


def engine(folder: Path) -> Any:
    """verl's training worker with a model of a few million parameters."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig
    from verl.workers.engine_workers import TrainingWorker

    from omniq_verl.tiny.model import TinySize, save_tiny_model

    images = [np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)]
    save_tiny_model(folder, ["Rate it."], images, size=TinySize(hidden=384, layers=4, mlp=1024, image_side=SIDE))
    precision = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    worker = TrainingWorker(
        TrainingWorkerConfig(
            model_type="language_model",
            model_config=HFModelConfig(
                path=str(folder),
                override_config={"attn_implementation": "omniq_varlen"},
                enable_gradient_checkpointing=False,
                use_remove_padding=True,
            ),
            engine_config=FSDPEngineConfig(
                strategy="fsdp2", dtype="float32", use_torch_compile=False, mixed_precision=precision
            ),
            optimizer_config=FSDPOptimizerConfig(lr=1e-6, total_training_steps=1),
            checkpoint_config=CheckpointConfig(),
        )
    )
    worker.reset()
    return worker.engine


def batch(model: Path, groups: int, answers: int, tokens: int) -> Any:
    """Rows in the form verl's workers get, as one micro-batch."""
    from tensordict import NonTensorStack, TensorDict
    from verl.utils import hf_processor
    from verl.utils import tensordict_utils as tu

    processor, random = hf_processor(str(model)), np.random.default_rng(0)
    rows = []
    for group in range(groups):
        turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Rate it."}]}]
        text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        seen = processor(text=[text], images=[pixels], return_tensors="pt")
        for _ in range(answers):
            length = int(random.integers(tokens // 2, tokens * 3 // 2))
            rows.append((f"group {group}", seen, torch.tensor(random.integers(100, 200, length))))
    ids = [torch.cat([seen["input_ids"][0], answer]) for _, seen, answer in rows]
    fields = {
        "input_ids": torch.nested.as_nested_tensor(ids, layout=torch.jagged),
        "responses": torch.nested.as_nested_tensor([answer for *_, answer in rows], layout=torch.jagged),
        "loss_mask": torch.nested.as_nested_tensor([torch.ones_like(row[2]) for row in rows], layout=torch.jagged),
        "position_ids": _positions(ids),
        "temperature": torch.ones(len(rows)),
        "uid": NonTensorStack(*(group for group, *_ in rows)),
        "multi_modal_inputs": NonTensorStack(
            *({key: seen[key] for key in ("pixel_values", "image_grid_thw")} for _, seen, _ in rows)
        ),
    }
    data = TensorDict(fields, batch_size=[len(rows)])
    settings = {"micro_batch_size_per_gpu": len(rows), "use_dynamic_bsz": False, "use_remove_padding": True}
    tu.assign_non_tensor(data, max_token_len_per_gpu=10**6, calculate_entropy=True, global_token_num=None, **settings)
    return data


def _positions(ids: list[torch.Tensor]) -> torch.Tensor:
    """Four plain rows of positions: the speed does not depend on their values."""
    offsets = torch.tensor([0, *np.cumsum([len(one) for one in ids])])
    values = torch.cat([torch.arange(len(one)).expand(4, -1) for one in ids], dim=-1)
    return torch.nested.nested_tensor_from_jagged(values, offsets, jagged_dim=2)


def loss(model_output: dict[str, Any], data: Any, dp_group: Any) -> tuple[torch.Tensor, dict]:
    return -model_output["log_probs"].values().mean(), {}


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    args = parse()
    os.environ |= {**ALONE, "MASTER_PORT": "0", "DIST_INIT_METHOD": "tcp://127.0.0.1:0", "VERL_PLATFORM": "cpu"}
    from verl.utils import tensordict_utils as tu

    from omniq_verl.trainer.shared_prompt import SHARED
    from omniq_verl.trainer.shared_prompt_verl import layout_of

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        trained = engine(model)
        data = batch(model, args.groups, args.answers, args.answer_tokens)
        plain, shared = len(data["input_ids"].values()), len(layout_of(data).tokens)
        print(f"{args.groups} prompts x {args.answers} answers: {plain:,} tokens, {shared:,} with shared prompts")

        def ways(work: Callable[[Any], Any]) -> dict[bool, float]:
            taken: dict[bool, list[float]] = {False: [], True: []}
            for repeat in range(args.repeats + 1):
                for share in (False, True):
                    given = data.copy()
                    tu.assign_non_tensor(given, **{SHARED: share})
                    spent = seconds(lambda given=given: work(given))
                    if repeat:  # the first is a warm-up and compares both ways
                        taken[share].append(spent)
            return {share: statistics.median(times) for share, times in taken.items()}

        for name, mode, work in (
            ("log-probabilities", trained.eval_mode, trained.infer_batch),
            ("update", trained.train_mode, lambda given: trained.train_batch(given, loss)),
        ):
            with mode():
                found = ways(work)
            ratio = found[False] / found[True]
            print(f"{name}: {found[False]:.2f} s, shared {found[True]:.2f} s: {ratio:.2f} times faster", end="")
            print(f" (bound {plain / shared:.2f})")


if __name__ == "__main__":
    main()
