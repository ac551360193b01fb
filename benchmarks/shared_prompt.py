"""What shared prompts save: the actor and reference phases of a step with and without them, in one process.

    python benchmarks/shared_prompt.py                        # three minutes on two CPU cores
    python benchmarks/shared_prompt.py --groups 4 --answers 16 --answer-tokens 40

verl's real FSDP2 engine trains a small random Qwen2.5-VL on groups of answers. Prompts are to answers as 11 to 4, as in
OmniQuality-R's training. Each measurement runs both variants in turn. The ratio of their medians is printed next to its
bound, the ratio of floating-point operations. Seconds are wall time and, in brackets, CPU time of all threads, which
other work on the machine disturbs less. The step is all three without generation. Memory is the peak of the process
above what it had before the update.
"""

import argparse
import ctypes
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
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
    parser.add_argument("--answer-tokens", type=int, help="mean length of an answer (default: 4/11 of the prompt's)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each variant")
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


def batch(model: Path, groups: int, answers: int, tokens: int | None) -> Any:
    """Rows as verl's workers get them, in one micro-batch."""
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
        tokens = tokens or seen["input_ids"].shape[1] * 4 // 11
        for _ in range(answers):
            length = int(random.integers(tokens // 2, tokens * 3 // 2))
            rows.append((f"group {group}", seen, torch.tensor(random.integers(100, 200, length))))
    ids = [torch.cat([seen["input_ids"][0], answer]) for _, seen, answer in rows]
    columns = {
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
    data = TensorDict(columns, batch_size=[len(rows)])
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


@dataclass(frozen=True)
class Cost:
    """Seconds that one call took."""

    wall: float
    cpu: float


def measured(work: Callable[[], Any]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def peak_memory(work: Callable[[], Any]) -> float:
    """MiB by which a call raises the memory of the process."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls left in the heap would hide it
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again at what there is now
    before = _memory("VmRSS")
    work()
    return _memory("VmHWM") - before


def _memory(name: str) -> float:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024


def operations(module: Any, data: Any, shared: bool) -> float:
    """Floating-point operations of a forward pass: two for each weight and token, four for each pair and channel."""
    from omniq_verl.trainer.shared_prompt_verl import groups_of, prompt_and_answer_lengths

    text, named = module.config.text_config, dict(module.named_parameters())
    layers = sum(p.numel() for name, p in named.items() if "language_model.layers" in name)
    vision = sum(p.numel() for name, p in named.items() if "visual" in name)
    prompts, answers = map(np.array, prompt_and_answer_lengths(data))
    patches = np.array([len(getattr(one, "data", one)["pixel_values"]) for one in data["multi_modal_inputs"]])
    first = np.unique(groups_of(data), return_index=True)[1] if shared else slice(None)
    tokens = prompts[first].sum() + answers.sum()
    logits = answers.sum() if shared else tokens
    own = (prompts[first] * (prompts[first] + 1) / 2).sum()
    pairs = own + (answers * prompts + answers * (answers + 1) / 2).sum()
    weights = layers * tokens + vision * patches[first].sum() + text.hidden_size * text.vocab_size * logits
    return 2 * weights + 4 * pairs * text.hidden_size * text.num_hidden_layers


def main() -> None:
    args = parse()
    os.environ |= {**ALONE, "MASTER_PORT": "0", "DIST_INIT_METHOD": "tcp://127.0.0.1:0", "VERL_PLATFORM": "cpu"}
    from omniq_verl.trainer.shared_prompt_verl import layout_of

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        trained = engine(model)
        data = batch(model, args.groups, args.answers, args.answer_tokens)
        plain, shared = len(data["input_ids"].values()), len(layout_of(data).tokens)
        bound = operations(trained.module, data, False) / operations(trained.module, data, True)
        print(f"{args.groups} prompts x {args.answers} answers: {plain:,} tokens, {shared:,} with shared prompts")
        phases = {
            "old log-probabilities": (trained.eval_mode, trained.infer_batch, True),
            "reference": (trained.eval_mode, trained.infer_batch, False),
            "update": (trained.train_mode, lambda given: trained.train_batch(given, loss), False),
        }
        found = {}
        for name, (mode, work, entropy) in phases.items():
            found[name] = both_ways(mode, work, data, args.repeats, entropy)
            report(name, found[name][False], found[name][True], bound)
        report("step", *(_added([costs[share] for costs in found.values()]) for share in (False, True)), bound)
        with trained.train_mode():
            peaks = [peak_memory(lambda s=s: trained.train_batch(asked(data, s), loss)) for s in (False, True)]
        print(
            f"memory of the update: {peaks[0]:.0f} MiB, shared {peaks[1]:.0f} MiB: a ratio of {peaks[0] / peaks[1]:.2f}"
        )


def asked(data: Any, share: bool, entropy: bool = False) -> Any:
    """The batch, with or without shared prompts and entropies."""
    from verl.utils import tensordict_utils as tu

    from omniq_verl.trainer.shared_prompt import SHARED

    given = data.copy()
    tu.assign_non_tensor(given, **{SHARED: share}, calculate_entropy=entropy)
    return given


def both_ways(
    mode: Callable[[], Any], work: Callable[[Any], Any], data: Any, repeats: int, entropy: bool
) -> dict[bool, Cost]:
    """The median cost without and with shared prompts."""
    taken: dict[bool, list[Cost]] = {False: [], True: []}
    with mode():
        for repeat in range(repeats + 1):
            for share in (False, True):
                given = asked(data, share, entropy)
                cost = measured(lambda given=given: work(given))
                if repeat:  # the first warms up, and compares both ways
                    taken[share].append(cost)
    return {share: _median(costs) for share, costs in taken.items()}


def _median(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(cost.wall for cost in costs), statistics.median(cost.cpu for cost in costs))


def _added(costs: list[Cost]) -> Cost:
    return Cost(sum(cost.wall for cost in costs), sum(cost.cpu for cost in costs))


def report(name: str, plain: Cost, shared: Cost, bound: float) -> None:
    print(f"{name}: {plain.wall:.2f} s ({plain.cpu:.2f}), shared {shared.wall:.2f} s ({shared.cpu:.2f}):", end=" ")
    print(f"{plain.wall / shared.wall:.2f} ({plain.cpu / shared.cpu:.2f}) times faster, bound {bound:.2f}", flush=True)


if __name__ == "__main__":
    main()
