"""Rollouts of verl's worker and of ours through a real TransferQueue, in one process; ``test_group_rollouts.py`` reads.

    python group_rollouts.py MODEL DATA FILE

Answers come from a stand-in for vLLM that draws tokens from the seed of the request. Everything else is real: data set,
processor, workers, rewards, queue, and the FSDP engine that computes log-probabilities of the rows.
"""

import asyncio
import json
import sys
import uuid
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray
import torch
import transfer_queue as tq
from omegaconf import OmegaConf, open_dict
from packed_engine import build_engine
from PIL import Image
from tensordict import NonTensorStack
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.utils import hf_processor, hf_tokenizer
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import collate_fn
from verl.workers.rollout.replica import TokenOutput

from omniq_verl.doctor.compose import compose_recipe
from omniq_verl.trainer.checked_dataset_verl import CheckedDataset
from omniq_verl.trainer.group_pixels import PIXELS
from omniq_verl.trainer.group_pixels_verl import PARTITION, drop_unused_pixels, with_pixels
from omniq_verl.trainer.group_rollouts_verl import GroupAgentLoopWorker, VerlWorker
from omniq_verl.trainer.shared_prompt import SHARED

PROMPTS, ANSWERS = 3, 16
RECIPES = Path(__file__).parents[2] / "recipes"


class Engine:
    """In place of the client of vLLM."""

    async def generate(self, request_id: str, *, sampling_params: dict[str, Any], **_: Any) -> TokenOutput:
        draw = np.random.default_rng(sampling_params["seed"])
        tokens = draw.integers(100, 200, int(draw.integers(3, 25))).tolist()
        await asyncio.sleep(float(draw.random()) / 100)  # rollouts end in another order than they began
        return TokenOutput(token_ids=tokens, log_probs=draw.random(len(tokens)).tolist(), extra_fields={})


class Counter:
    """Calls of the image processor, and bytes of tensors and images that are put into the queue."""

    def __init__(self) -> None:
        self.processed = self.pixels = self.images = 0

    def attach(self, processor: Any) -> None:
        processor.image_processor = _Counted(processor.image_processor, self)
        client = tq.get_client()
        put = client.async_put

        async def counted(data: Any, *args: Any, **kwargs: Any) -> Any:
            for value in data.values():
                self._count(value if isinstance(value, torch.Tensor) else value.tolist())
            return await put(data, *args, **kwargs)

        client.async_put = counted

    def _count(self, value: Any, name: str = "") -> None:
        if isinstance(value, torch.Tensor):
            if value.dtype == torch.float32 and value.dim() >= 2 and not value.is_nested and value.shape[-1] > 100:
                self.pixels += value.numel() * value.element_size()
        elif isinstance(value, Image.Image | bytes):
            self.images += 1
        elif isinstance(value, dict):
            for one in value.values():
                self._count(one)
        elif isinstance(value, list | tuple | np.ndarray):
            for one in value:
                self._count(one)


class _Counted:
    def __init__(self, real: Any, counter: Counter):
        self._real, self._counter = real, counter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._counter.processed += 1
        return self._real(*args, **kwargs)


def configuration(model: str, data: str) -> Any:
    settings = {
        "actor_rollout_ref.model.path": model,
        "data.train_files": data,
        "data.val_files": data,
        "actor_rollout_ref.rollout.n": ANSWERS,
        "trainer.default_local_dir": "unused",
    }
    config = compose_recipe("quickstart/grpo", [f"{key}={value}" for key, value in settings.items()], RECIPES)
    ray_settings = OmegaConf.to_container(config.ray_kwargs.ray_init, resolve=True)
    ray_settings["runtime_env"] = {"env_vars": {"VERL_PLATFORM": "cpu"}}
    ray.init(log_to_driver=False, **ray_settings)
    with open_dict(config):
        config.transfer_queue.enable = True
    OmegaConf.resolve(config)
    tq.init(config.transfer_queue)
    return config


class _Copied:
    """verl's reward worker in this process, with a copy of its input as Ray would make it: it changes the rows."""

    def __init__(self, worker: RewardLoopWorker):
        self._worker = worker

    async def __call__(self, data: Any) -> dict[str, Any]:
        self._worker.reward_manager.loop = asyncio.get_running_loop()
        return await self._worker.compute_score(deepcopy(data))


async def roll_out(worker: Any, rows: list[dict[str, Any]], groups: list[str], **meta: Any) -> None:
    """What a manager asks of a worker, and waits for."""
    batch = collate_fn(rows)
    batch["uid"] = np.array(groups, dtype=object)
    data = tu.get_tensordict(batch)
    for name, value in {"global_steps": 1, **meta}.items():
        tu.assign_non_tensor_data(data, name, value)
    await worker.generate_sequences(data)
    while worker.background_tasks:
        await asyncio.wait(worker.background_tasks)


def rows_of(groups: list[str]) -> Any:
    keys = [f"{group}_{session}_0" for group in groups for session in range(ANSWERS)]
    return tq.kv_batch_get(keys=keys, partition_id="train")


def log_probs(engine: Any, data: Any, shared: bool = False) -> tuple[list[list[float]], int]:
    """The answers' log-probabilities, and the patches that pass through the vision tower."""
    patches = []
    visual = next(module for name, module in engine.module.named_modules() if name.endswith("visual"))
    hook = visual.register_forward_pre_hook(lambda _, given: patches.append(len(given[0])))
    data = data.copy()
    settings = {"micro_batch_size_per_gpu": len(data), "use_dynamic_bsz": False, "max_token_len_per_gpu": 10**6}
    tu.assign_non_tensor(
        data, **{SHARED: shared}, **settings, temperature=1.0, calculate_entropy=False, global_token_num=None,
        use_remove_padding=engine.use_remove_padding, compute_loss=False,
    )  # fmt: skip
    engine._compared = True  # its comparison would count as well
    with engine.eval_mode():
        values = engine.infer_batch(data)["model_output"]["log_probs"]
    hook.remove()
    lengths = data["responses"].offsets().diff().tolist()
    return [row[-length - 1 : -1].tolist() for row, length in zip(values.unbind(), lengths, strict=True)], sum(patches)


def main() -> None:
    model, parquet, target = sys.argv[1:]
    config = configuration(model, parquet)
    data = CheckedDataset(parquet, hf_tokenizer(model), config.data, hf_processor(model))
    rows = [data[i] for i in range(PROMPTS)]
    reward = SimpleNamespace(compute_score=SimpleNamespace(remote=_Copied(RewardLoopWorker(config))))
    found: dict[str, Any] = {}
    for name, kind in (("verl", VerlWorker), ("ours", GroupAgentLoopWorker)):
        groups = [uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {i}").hex for i in range(PROMPTS)]
        found[name] = {**measure(config, kind, [reward], rows, groups), "groups": groups}
    batches = {name: rows_of(found[name]["groups"]) for name in found}
    found["same"] = same_rows(batches["verl"], batches["ours"])
    engine = build_engine(model, packed=True, checkpointing=False)
    for name, batch in batches.items():
        for shared in (False, True):
            values, patches = log_probs(engine, batch, shared)
            found[name][f"log_probs {shared}"], found[name][f"patches {shared}"] = values, patches
        some = tu.index_select_tensor_dict(batch, [5, 17, 18, 40])  # no first row of a group is among them
        found[name]["log_probs of some"] = log_probs(engine, some, True)[0]
    padded = build_engine(model, packed=False, checkpointing=False)
    for name, batch in batches.items():
        found[name]["log_probs padded"] = log_probs(padded, batch)[0]
    found["log_probs blind"] = log_probs(engine, blind(batches["ours"]), True)[0]
    found["cleared"] = cleared(found["ours"]["groups"])
    Path(target).write_text(json.dumps(found))
    tq.close()
    ray.shutdown()


def blind(data: Any) -> Any:
    """The rows with images of zeros."""
    changed = with_pixels(data)
    rows = [getattr(one, "data", one) for one in changed["multi_modal_inputs"]]
    changed["multi_modal_inputs"] = NonTensorStack(*({**row, PIXELS: torch.zeros_like(row[PIXELS])} for row in rows))
    return changed


def measure(config: Any, kind: type, rewards: list, rows: list, groups: list[str]) -> dict[str, Any]:
    counter = Counter()

    async def run() -> Any:
        worker = kind(config, Engine(), None, rewards)
        counter.attach(worker.processor)
        await roll_out(worker, rows, groups)

    put = tq.get_client().async_put
    asyncio.run(run())
    tq.get_client().async_put = put
    return {"processed": counter.processed, "pixels": counter.pixels, "images": counter.images}


def same_rows(one: Any, other: Any) -> dict[str, bool]:
    """By field: whether two batches have the same in it; ``other`` gets its pixels first."""
    whole = with_pixels(other)
    return {name: all(map(_same, _rows(one[name]), _rows(whole[name]))) for name in sorted(one.keys())}


def _rows(values: Any) -> list[Any]:
    if isinstance(values, torch.Tensor):
        return list(values.unbind())
    return [getattr(value, "data", value) for value in values]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return bool(np.all(one == other)) or (one != one and other != other)


def cleared(groups: list[str]) -> dict[str, int]:
    """Groups with pixels: at first, with all rows of the first group gone, and with all rows gone."""
    counts = {}
    for name, gone in (("at first", []), ("one gone", groups[:1]), ("all gone", groups)):
        keys = [f"{group}_{session}_0" for group in gone for session in range(ANSWERS)]
        if keys:
            tq.kv_clear(keys=[*gone, *keys], partition_id="train")
        drop_unused_pixels()
        counts[name] = len((tq.kv_list(PARTITION) or {}).get(PARTITION, {}))
    return counts


if __name__ == "__main__":
    main()
