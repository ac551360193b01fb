"""Requests through a real Ray: verl's client and ours, verl's balancer, two of our servers; the test reads the result.

    python batched_requests.py FILE

Only vLLM is replaced, by answers that tell what was asked.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray
from omegaconf import OmegaConf
from PIL import Image
from verl.workers.rollout.llm_server import GlobalRequestLoadBalancer, LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from omniq_verl.trainer.batched_requests_verl import batched
from omniq_verl.trainer.weight_socket_verl import ClusterHttpServer

ANSWERS, LONG = 16, 40


class Unreadable(Exception):
    def __init__(self, code: int, text: str):
        super().__init__(f"{text} ({code})")


class Server(ClusterHttpServer):
    """Our server without an engine."""

    def __init__(self) -> None:
        self.images: list[Any] = []

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict, request_id: str, **asked: Any
    ) -> TokenOutput:
        seed = sampling_params.pop("seed")  # as verl's takes settings out (vllm_async_server.py:603)
        self.images.append(asked["image_data"][0])
        await asyncio.sleep(seed / 1000)
        if seed == LONG:
            raise Unreadable(3, "the prompt is too long")
        if seed > LONG:
            os._exit(1)
        bright = int(np.asarray(asked["image_data"][0]).max())
        return TokenOutput(token_ids=[*prompt_ids, seed, bright], log_probs=[-0.5], extra_fields={"global_steps": 4})

    def images_received(self) -> int:
        return len(set(map(id, self.images)))


async def ask(client: Any, seed: int, image: Image.Image, settings: dict[str, Any]) -> Any:
    try:
        found = await client.generate(
            request_id=f"rollout {seed}",
            prompt_ids=[1, 2],
            sampling_params={**settings, "seed": seed},
            image_data=[image],
            mm_processor_output=None,
            priority=0,
        )
    except Exception as error:
        return str(error)
    return found.model_dump()


async def group(client: Any, seeds: Any) -> list[Any]:
    image = Image.fromarray(np.full((8, 8, 3), 77, dtype=np.uint8))
    settings = {"temperature": 1.0, "logit_bias": {5: -100.0}}
    return await asyncio.wait_for(asyncio.gather(*(ask(client, seed, image, settings) for seed in seeds)), timeout=60)


def main() -> None:
    ray.init(num_cpus=3, log_to_driver=False)
    start = ray.remote(Server).options(max_concurrency=1000, num_cpus=0)
    servers = {f"server {number}": start.remote() for number in range(2)}
    balancer = ray.remote(GlobalRequestLoadBalancer).options(num_cpus=0).remote(servers)
    ray.get([*(one.images_received.remote() for one in servers.values()), balancer.get_status.remote()])  # have started
    config = SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=OmegaConf.create({"name": "vllm"})))
    verls = LLMServerClient(config, balancer)
    ours = batched(verls)
    found: dict[str, Any] = {}

    async def run() -> None:
        found["verl"] = await group(verls, range(ANSWERS))
        await group(ours, [0])  # gets to know the balancer
        before = await asyncio.gather(*(one.images_received.remote() for one in servers.values()))
        found["ours"] = await group(ours, range(ANSWERS))
        after = await asyncio.gather(*(one.images_received.remote() for one in servers.values()))
        found["images"] = [late - early for early, late in zip(before, after, strict=True)]
        found["one fails"] = await group(ours, [3, LONG, 5, 7])
        found["status"] = await balancer.get_status.remote()
        found["status"].pop("registered_handles")
        found["one server dies"] = await group(ours, [0, 1, LONG + 20, 2])

    asyncio.run(run())
    Path(sys.argv[1]).write_text(json.dumps(found))
    ray.shutdown()


if __name__ == "__main__":
    main()
