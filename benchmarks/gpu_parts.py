"""Parts of ``gpu_step.py`` that need no trainer; each runs in its own process, which frees the GPU's memory.

    python benchmarks/gpu_parts.py scorer runs/gpu_step/plan.json runs/gpu_step/scorer.json

The first file is written by ``gpu_step.py``; the results are written to the second.
"""

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_flops import ModelShape, forward_flops
from gpu_plan import Plan
from real_size import photographs

MICRO_BATCH_TOKENS = 16_384
"""Tokens of a micro-batch in ``recipes/hardware/4x80g.yaml``."""
_COUNTED = 16
"""Number of images whose answers' tokens are counted."""
_TIMED = 3
"""Number of timed micro-batches, after an untimed one."""


def say(text: str) -> None:
    print(text, flush=True)


def forward(plan: Plan) -> dict[str, Any]:
    """Seconds of a bare forward pass over the training batch: a lower bound for ``old_log_prob``.

    Uses the transformers model in bf16, without gradients, with logits of all tokens and the recipe's micro-batch size.
    All sequences have the same length, so they are rows of a batch instead of packed; nothing is padded, and the
    language model's attention is SDPA's flash kernel. A few micro-batches are timed and scaled to the whole batch.
    """
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    device, dtype = ("cuda", torch.bfloat16) if plan.on_gpu else ("cpu", torch.float32)
    # device_map reads the weights straight onto the GPU
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        plan.model, dtype=dtype, attn_implementation="sdpa", device_map=device
    ).eval()
    if plan.on_gpu:
        use_varlen_vision(model)
    tokens = round(plan.prompt_tokens_mean) + plan.answer_tokens
    rows = max(1, min(MICRO_BATCH_TOKENS // tokens, plan.prompts * plan.answers))
    batch = {name: value.to(device) for name, value in forward_batch(plan, rows, tokens).items()}
    # The trainer's batches contain positions as well.
    batch["position_ids"] = model.model.get_rope_index(
        batch["input_ids"], mm_token_type_ids=batch.pop("mm_token_type_ids"), image_grid_thw=batch["image_grid_thw"]
    )[0]
    wait = torch.cuda.synchronize if plan.on_gpu else lambda: None
    seconds = []
    with torch.no_grad():
        for _ in range(1 + _TIMED):
            wait()
            start = time.perf_counter()
            model(**batch, use_cache=False)
            wait()
            seconds.append(time.perf_counter() - start)
    say(f"micro-batches of {rows} x {tokens} tokens: {', '.join(f'{value:.3f}' for value in seconds)} s")
    whole = sum(seconds[1:]) / _TIMED / rows * plan.prompts * plan.answers
    needed = plan.prompts * plan.answers * forward_flops(ModelShape.read(Path(plan.model)), plan.lengths)
    peak = torch.cuda.max_memory_allocated() / 2**30 if plan.on_gpu else None
    return {"seconds": whole, "mfu": needed / whole / plan.peak, "rows": rows, "tokens": tokens, "peak_gib": peak}


def forward_batch(plan: Plan, rows: int, tokens: int) -> dict[str, Any]:
    """Model inputs ``[rows, tokens]``: text, one image per row, text."""
    import torch
    from PIL import Image
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(plan.model)
    pictures = [Image.open(path).convert("RGB") for path in sorted(Path(plan.out, "photos").glob("*.jpg"))[:rows]]
    pixels = processor.image_processor(
        images=[pictures[number % len(pictures)] for number in range(rows)], return_tensors="pt"
    )
    number = processor.tokenizer.convert_tokens_to_ids
    image_tokens = int(pixels["image_grid_thw"][0].prod()) // processor.image_processor.merge_size**2
    ids = torch.randint(0, 300, (rows, tokens), generator=torch.Generator().manual_seed(0))
    first = 16  # about the number of tokens of the system turn
    ids[:, first] = number("<|vision_start|>")
    ids[:, first + 1 : first + 1 + image_tokens] = number("<|image_pad|>")
    ids[:, first + 1 + image_tokens] = number("<|vision_end|>")
    kinds = (ids == number("<|image_pad|>")).int()  # 1 marks image tokens, which have two-dimensional positions
    return {"input_ids": ids, "mm_token_type_ids": kinds, **pixels}


def use_varlen_vision(model: Any) -> None:
    """Let the vision tower compute all its windows in one call of torch's flash kernel.

    With SDPA, transformers calls attention once per window, thousands of times for a micro-batch.
    """
    from torch.nn.attention.varlen import varlen_attn
    from transformers.modeling_utils import AttentionInterface

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any = None, **given: Any) -> tuple[Any, None]:
        ends, longest = given["cu_seq_lens_q"].int(), int(given["max_length_q"])
        query, key, value = (each[0].transpose(0, 1).contiguous() for each in (query, key, value))
        return varlen_attn(query, key, value, ends, ends, longest, longest)[None], None

    # Transformers passes the windows' ends to implementations with "flash" in their name, and looks for a downloadable
    # kernel of that name if it is given while the model is loaded.
    AttentionInterface.register("gpu_step_flash", attend)
    for module in model.model.visual.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation_internal = "gpu_step_flash"


_ENGINES: dict[str, Any] = {}


def shared_engine(spec: Any) -> Any:
    """One vLLM engine for all ``Scorer`` objects of this process (an engine of ``EngineSpec.kind``)."""
    from omniq_verl.generation.engines import open_engine

    if spec.model not in _ENGINES:
        _ENGINES[spec.model] = open_engine(replace(spec, kind="vllm"))
    return _ENGINES[spec.model]


def scorer(plan: Plan) -> dict[str, Any]:
    """Images per second of ``omniq_verl.Scorer``, files in and scores out, at long and at short answers.

    Every image is new to the engine. The answers have exactly the maximum number of tokens, because these models'
    greedy answers do not end; some of them are counted after the measurement.
    """
    sys.modules["gpu_parts"] = sys.modules[__name__]  # EngineSpec imports the engine by this name
    from omniq_verl import Scorer

    settings = {"engine": "gpu_parts:shared_engine", "max_model_len": plan.most_prompt_tokens + 256}
    settings |= {"memory": 0.5} if plan.on_gpu else {"dtype": "float32", "memory": 0.2}
    warm_up = 16
    files = photographs(2 * plan.score_images + warm_up, plan.width, plan.height, seed=1)
    Scorer(plan.model, max_tokens=4, **settings).score(files[:warm_up])
    del files[:warm_up]
    found: dict[str, Any] = {"images": plan.score_images}
    for tokens in (plan.score_tokens, plan.few_tokens):
        images, files = files[: plan.score_images], files[plan.score_images :]
        measured = Scorer(plan.model, max_tokens=tokens, **settings)
        start = time.perf_counter()
        measured.score(images)
        speed = len(images) / (time.perf_counter() - start)
        found[f"images_per_second_{tokens}"] = speed
        written = answer_lengths(plan.model, images[:_COUNTED], tokens)
        say(f"{speed:.2f} images/s; {min(written)} to {max(written)} of {tokens} tokens")
        if min(written) < tokens:
            raise RuntimeError(f"an answer ended after {min(written)} of {tokens} tokens; the speed is too high")
    return found


def answer_lengths(model: str, images: list[bytes], tokens: int) -> list[int]:
    """Number of tokens of ``Scorer``'s answers for these images, at most ``tokens`` each."""
    from omniq_verl.generation.request import Sampling
    from omniq_verl.scoring.scorer import score_request
    from omniq_verl.tasks import TECHNICAL

    requests = [score_request(str(number), data, str(number), TECHNICAL, None, 0) for number, data in enumerate(images)]
    return [answers[0].tokens for answers in _ENGINES[model].answer(requests, Sampling(max_tokens=tokens))]


def rali(plan: Plan) -> dict[str, Any]:
    """Images per second of ``RaliScorer`` with CLIP ViT-L/14-336, files in and scores out (a small CLIP on the CPU)."""
    import rali as rali_benchmark  # benchmarks/rali.py

    from omniq_verl.rali import RaliScorer

    dtype = "bfloat16" if plan.on_gpu else "float32"
    folder = Path(plan.out, "rali")
    rali_benchmark.save_random_rali(folder, argparse.Namespace(small=not plan.on_gpu, dtype=dtype))
    batch = 128 if plan.on_gpu else 16
    measured = RaliScorer(folder, batch=batch, dtype=dtype)
    files = photographs(plan.rali_images, plan.width, plan.height, seed=2)
    measured.score(files[:batch])
    start = time.perf_counter()
    measured.score(files)
    speed = len(files) / (time.perf_counter() - start)
    say(f"{speed:.1f} images/s, batches of {batch}")
    return {"images_per_second": speed, "images": len(files), "batch": batch}


def sleep(plan: Plan) -> dict[str, Any]:
    """See ``gpu_sleep.py``."""
    from gpu_sleep import compare_after_sleep

    return compare_after_sleep(plan)


def stand_by(part: str, go: Path) -> None:
    """Import what the part needs, which takes almost a minute but no GPU memory, and wait until ``go`` exists."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # read when vLLM is imported
    modules = {"forward": ("transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",), "rali": ("omniq_verl.rali",)}
    for module in modules.get(part, ("vllm.entrypoints.llm", "omniq_verl.scoring.scorer")):
        importlib.import_module(module)
    while not go.exists():
        time.sleep(0.1)


PARTS: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "forward": forward,
    "sleep": sleep,
    "scorer": scorer,
    "rali": rali,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("plan", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--wait-for", type=Path, metavar="FILE", help="import everything, then wait until it exists")
    args = parser.parse_args()
    try:
        plan = Plan.read(args.plan)
        if args.wait_for:
            stand_by(args.part, args.wait_for)
        result = PARTS[args.part](plan)
        unfinished = args.result.with_suffix(".part")
        unfinished.write_text(json.dumps(result, indent=1))
        os.replace(unfinished, args.result)
    except Exception:
        traceback.print_exc()
        end(1)
    end(0)


def end(code: int) -> NoReturn:
    """Exit at once: the clean-up of vLLM and Triton takes seconds and prints hundreds of lines after the error."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
