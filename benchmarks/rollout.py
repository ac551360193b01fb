"""What a rollout costs besides the engine: verl's agent loop workers, and ours, with answers that come at once.

    python benchmarks/rollout.py --run runs/quickstart      # two minutes on two CPU cores

Real workers, TransferQueue, images and rewards; only vLLM is replaced by answers without delay. Both managers take
turns on the same prompts. The last line is the ratio of their medians.
"""

import argparse
import os
import statistics
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

REPO = Path(__file__).parents[1]
MANAGERS = {
    "verl": "verl.trainer.ppo.v1.agent_loop_tq.AgentLoopManagerTQ",
    "ours": "omniq_verl.trainer.group_rollouts_verl.GroupAgentLoopManager",
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of the quickstart, with data/ and model/")
    parser.add_argument("--prompts", type=int, default=16, help="prompts of a batch")
    parser.add_argument("--answers", type=int, default=16, help="answers to each prompt")
    parser.add_argument("--side", type=int, default=80, help="pixels of a side that images are resized to")
    parser.add_argument("--repeats", type=int, default=5, help="batches of each manager; one more warms up")
    return parser.parse_args()


class AtOnce:
    """In place of verl's client of vLLM: an answer without delay, the same for the same seed."""

    async def generate(self, request_id: str, *, sampling_params: dict[str, Any], **_: Any) -> Any:
        from verl.workers.rollout.replica import TokenOutput

        draw = np.random.default_rng(sampling_params.get("seed", 0))
        tokens = draw.integers(100, 200, 24).tolist()
        return TokenOutput(token_ids=tokens, log_probs=[-1.0] * len(tokens), extra_fields={"global_steps": 1})


def configuration(args: argparse.Namespace, model: Path) -> Any:
    from omniq_verl.doctor.compose import compose_recipe

    pixels = args.side**2
    return compose_recipe(
        "quickstart/grpo",
        [
            f"actor_rollout_ref.model.path={model}",
            f"data.train_files={args.run / 'data/train.parquet'}",
            f"data.val_files={args.run / 'data/val.parquet'}",
            f"data.train_batch_size={args.prompts}",
            f"actor_rollout_ref.rollout.n={args.answers}",
            "data.max_prompt_length=4096",
            f"+data.mm_processor_kwargs.min_pixels={pixels}",
            f"+data.mm_processor_kwargs.max_pixels={pixels}",
            "trainer.default_local_dir=unused",
        ],
        REPO / "recipes",
    )


def prompts(config: Any, count: int) -> list[dict[str, Any]]:
    """Rows as the trainer's data set returns them."""
    from verl.utils import hf_processor, hf_tokenizer

    from omniq_verl.trainer.checked_dataset_verl import CheckedDataset

    model = config.actor_rollout_ref.model.path
    data = CheckedDataset(str(config.data.train_files), hf_tokenizer(model), config.data, hf_processor(model), count)
    return [data[i] for i in range(count)]


class Batches:
    """Batches for a manager, each of the same rows."""

    def __init__(self, config: Any, rows: list[dict[str, Any]], client: Any):
        from verl.experimental.reward_loop import RewardLoopManager

        self._config, self._rows, self._client = config, rows, client
        self._rewards = RewardLoopManager(config).reward_loop_worker_handles
        self._managers: dict[str, Any] = {}

    def seconds(self, name: str) -> float:
        """The time from handing out a batch until every group of it has ended."""
        import transfer_queue as tq
        from verl.utils import tensordict_utils as tu
        from verl.utils.dataset.rl_dataset import collate_fn

        manager = self._manager(name)
        batch = collate_fn(self._rows)
        batch["uid"] = np.array([uuid.uuid4().hex for _ in self._rows], dtype=object)
        data = tu.get_tensordict(batch)
        tu.assign_non_tensor_data(data, "global_steps", 1)
        uids = list(batch["uid"])
        tags = [{"is_prompt": True, "status": "pending", "global_steps": 1} for _ in uids]
        tq.kv_batch_put(keys=uids, partition_id="train", tags=tags)
        began = time.perf_counter()
        manager.generate_sequences(data)
        while not all((tags := tq.kv_list("train")["train"])[uid]["status"] in ("finished", "failure") for uid in uids):
            time.sleep(0.05)  # each look costs milliseconds of CPU time; verl looks every two seconds
        taken = time.perf_counter() - began
        assert all(tags[uid]["status"] == "finished" for uid in uids), "a rollout failed; the log above says why"
        tq.kv_clear(keys=list(tags), partition_id="train")
        return taken

    def _manager(self, name: str) -> Any:
        from verl.utils.import_utils import load_class_from_fqn

        if name not in self._managers:
            self._managers[name] = load_class_from_fqn(MANAGERS[name], "AgentLoopManager").create(
                config=self._config,
                llm_client=self._client,
                teacher_client=None,
                reward_loop_worker_handles=self._rewards,
            )
        return self._managers[name]


def fixed_cost(args: argparse.Namespace, batches: Batches) -> None:
    taken: dict[str, list[float]] = {name: [] for name in MANAGERS}
    for repeat in range(args.repeats + 1):
        for name in MANAGERS:
            spent = batches.seconds(name)
            if repeat:  # the first loads and warms up
                taken[name].append(spent)
    rollouts = args.prompts * args.answers
    each = {name: statistics.median(times) / rollouts * 1000 for name, times in taken.items()}
    print(f"{args.prompts} prompts x {args.answers} answers, images of {args.side} pixels squared:")
    for name, cost in each.items():
        print(f"  {name}: {cost:.2f} ms per rollout")
    print(f"  ratio {each['verl'] / each['ours']:.2f}", flush=True)


def start(config: Any) -> None:
    """Ray and TransferQueue, as verl's main program starts them."""
    import ray
    import transfer_queue as tq
    from omegaconf import OmegaConf, open_dict
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

    settings = OmegaConf.to_container(config.ray_kwargs.ray_init, resolve=True)
    settings["runtime_env"] = {"env_vars": {**get_ppo_ray_runtime_env()["env_vars"], "VERL_PLATFORM": "cpu"}}
    ray.init(**settings)
    with open_dict(config):
        config.transfer_queue.enable = True
    OmegaConf.resolve(config)
    tq.init(config.transfer_queue)


def main() -> None:
    args = parse()
    args.run = args.run.resolve()
    os.environ["VERL_PLATFORM"] = "cpu"
    config = configuration(args, args.run / "model")
    start(config)
    rows = prompts(config, args.prompts)
    fixed_cost(args, Batches(config, rows, AtOnce()))


if __name__ == "__main__":
    main()
