"""Checks whether a vLLM engine answers exactly as before after it has slept. A part of ``gpu_step.py``.

verl puts the engine to sleep while the policy trains: at level 1 its weights move to host memory, at level 2 they are
discarded and sent again by the trainer. NeMo-RL's issue 2631 reported that a vision-language model answered differently
after level 2. Here the same sampled answers, with images, are generated again after each kind of sleep, and their
tokens and log-probabilities are compared bit by bit. The weights are the same, so any difference is an error.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_plan import Plan
from real_size import photographs

_IMAGES, _ANSWERS, _TOKENS = 8, 2, 32
_BUCKET = 2**30
"""Bytes of weights loaded per bucket, similar to verl."""
_QUESTION = "What is the quality of this photograph? <image>"


def compare_after_sleep(plan: Plan) -> dict[str, Any]:
    """Largest difference of log-probabilities after each event; 0.0 if bit-equal, None if the tokens differ.

    ``again``: nothing happened in between, which tests whether the engine is deterministic at all. ``reload``: weights
    were reloaded without sleep. ``level_1`` and ``level_2``: after sleep and wake-up; only on a GPU.
    """
    engine, prompts = open_engine(plan)
    before = answers(engine, prompts)
    found: dict[str, Any] = {"answers": len(before)}

    def check(event: str) -> None:
        found[event] = largest_difference(before, answers(engine, prompts))
        print(f"{event}: {describe(found[event])}", flush=True)

    check("again")
    load_weights(engine, Path(plan.model))
    check("reload")
    if not plan.on_gpu:
        return found
    engine.sleep(level=1)
    engine.wake_up()
    check("level_1")
    engine.sleep(level=2)
    engine.wake_up(tags=["weights"])
    load_weights(engine, Path(plan.model))
    engine.wake_up(tags=["kv_cache"])
    check("level_2")
    return found


def describe(difference: float | None) -> str:
    """The result as text."""
    if difference is None:
        return "other tokens"
    return "bit-equal" if difference == 0 else f"log-probabilities differ by up to {difference:.3g}"


def open_engine(plan: Plan) -> tuple[Any, list[dict[str, Any]]]:
    """vLLM in this process, with the relevant settings of verl's rollouts, and prompts with images."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # so that no weights are sent to another process
    from transformers import AutoProcessor
    from vllm import LLM

    from omniq_verl.generation.vllm_offline import vllm_prompt

    on_cpu = {"dtype": "float32", "gpu_memory_utilization": 0.2, "enable_chunked_prefill": False}
    engine = LLM(
        model=plan.model,
        max_model_len=plan.most_prompt_tokens + 256,
        seed=0,
        enable_prefix_caching=False,  # a cached prefix would hide changes, and changes the last bits
        limit_mm_per_prompt={"image": 1},
        **({"gpu_memory_utilization": 0.6, "enable_sleep_mode": True} if plan.on_gpu else on_cpu),
        enforce_eager=plan.eager or not plan.on_gpu,
    )
    processor = AutoProcessor.from_pretrained(plan.model)
    question = [{"role": "user", "content": _QUESTION}]
    files = photographs(_IMAGES, plan.width, plan.height, seed=3)
    return engine, [vllm_prompt(processor, question, [content]) for content in files]


def answers(engine: Any, prompts: list[dict[str, Any]]) -> list[tuple[list[int], list[float]]]:
    """Tokens and log-probabilities of sampled answers, with fixed seeds; every image is encoded again."""
    from vllm import SamplingParams

    # As verl does after sending weights; otherwise the engine would not run its vision tower again.
    engine.llm_engine.reset_mm_cache()
    engine.llm_engine.reset_encoder_cache()
    sampling = SamplingParams(n=_ANSWERS, temperature=1.0, seed=0, max_tokens=_TOKENS, logprobs=0, ignore_eos=True)
    results = engine.generate(prompts, sampling, use_tqdm=False)
    return [
        (list(one.token_ids), [step[token].logprob for token, step in zip(one.token_ids, one.logprobs, strict=True)])
        for result in results
        for one in result.outputs
    ]


def largest_difference(
    before: list[tuple[list[int], list[float]]], after: list[tuple[list[int], list[float]]]
) -> float | None:
    """Largest difference of two sets of log-probabilities; None if the tokens differ."""
    if [tokens for tokens, _ in before] != [tokens for tokens, _ in after]:
        return None
    pairs = zip(before, after, strict=True)
    return max(abs(old - new) for (_, olds), (_, news) in pairs for old, new in zip(olds, news, strict=True))


def load_weights(engine: Any, folder: Path) -> None:
    """Load a model folder's weights into a running engine, with the functions that verl's workers use."""
    from verl.workers.rollout.vllm_rollout.weight_update_utils import apply_buffer_updates, split_buffer_updates
    from vllm.model_executor.model_loader.utils import process_weights_after_loading

    config = engine.llm_engine.vllm_config.model_config

    def load(model: Any) -> None:
        device = next(model.parameters()).device
        for bucket in weight_buckets(folder, device):
            parameters, buffers, known = split_buffer_updates(model, bucket)
            model.load_weights(parameters)
            apply_buffer_updates(model, buffers, named_buffers=known)
        process_weights_after_loading(model, config, device)

    engine.apply_model(load)


def weight_buckets(folder: Path, device: Any) -> Iterator[list[tuple[str, Any]]]:
    """Named tensors of a model folder, in buckets."""
    from safetensors import safe_open

    bucket: list[tuple[str, Any]] = []
    size = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt", device=str(device)) as file:
            for name in file.keys():  # noqa: SIM118  (not a mapping)
                tensor = file.get_tensor(name)
                if bucket and size + tensor.nbytes > _BUCKET:
                    yield bucket
                    bucket, size = [], 0
                bucket.append((name, tensor))
                size += tensor.nbytes
    if bucket:
        yield bucket
