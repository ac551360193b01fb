"""Ranks of verl's FSDP engine that fetch their groups' pixels from a real TransferQueue; ``test_pixel_ranks.py`` reads.

    python pixel_ranks.py MODEL FOLDER

The rows of "groups" alternate, so that each of two ranks has rows of every group. For each number of ranks, FOLDER gets
a file of each rank: what ``packed_engine.run`` finds where rows carry their pixels, where they carry the name of
their group (shared and separate prompts), and where the queue has other pixels; and what the rank fetched. stored.npz
has what was stored.
"""

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
import transfer_queue as tq
from omegaconf import OmegaConf

from omniq_verl.trainer import group_pixels_verl
from omniq_verl.trainer.group_pixels import PIXELS, without_pixels

ROWS = "groups"
WAYS = ("own pixels", "fetched", "fetched, separate prompts", "other pixels")
OTHER = "of other images, "
"""Begins the names of groups under which the queue has images of zeros."""


def build(model: str) -> list[dict[str, Any]]:
    from packed_rows import build_rows

    return build_rows(Path(model), ROWS)


def named(rows: list[dict[str, Any]], prefix: str = "") -> list[dict[str, Any]]:
    """The rows with the names of their groups in place of pixels."""
    return [
        {**row, "multi_modal_inputs": without_pixels(row["multi_modal_inputs"], prefix + row["uid"])} for row in rows
    ]


class Rank:
    """A process of the engine."""

    def __init__(self, model: str):
        from packed_engine import build_engine

        tq.init()  # as verl's workers do, which finds the one that is there
        self._model = model
        self._engine = build_engine(model, packed=True, checkpointing=False)
        self._fetched: list[dict[str, torch.Tensor]] = []
        self._watch()

    def _watch(self) -> None:
        """Record what the engine fetches."""
        get = group_pixels_verl.get_pixels

        def watched(groups: Any) -> dict[str, torch.Tensor]:
            self._fetched.append(get(groups))
            return self._fetched[-1]

        group_pixels_verl.get_pixels = watched

    def measure(self, target: str) -> None:
        from packed_engine import run

        rows, found = build(self._model), {}
        batches = (rows, named(rows), named(rows), named(rows, OTHER))
        for way, batch in zip(WAYS, batches, strict=True):
            self._fetched.clear()
            shared = way != "fetched, separate prompts"
            values = run(self._engine, batch, micro=2, tokens=0, shared=shared)
            found |= {f"{way}/{name}": value for name, value in values.items()}
            found[f"{way}/lengths"] = [len(row["responses" if shared else "input_ids"]) - (not shared) for row in rows]
            for number, one in enumerate(self._fetched):
                found |= {f"{way}/fetch {number}/{group}": pixels.numpy() for group, pixels in one.items()}
        np.savez(target, **found)


def start() -> None:
    settings = {"num_cpus": 8, "num_gpus": 0, "include_dashboard": False, "log_to_driver": False}
    ray.init(runtime_env={"env_vars": {"VERL_PLATFORM": "cpu"}}, **settings)
    tq.init(OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}}))


def put(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Store the pixels of all groups, and return them by group."""
    stored = {row["uid"]: row["multi_modal_inputs"][PIXELS] for row in rows}
    for group, pixels in stored.items():
        asyncio.run(group_pixels_verl.put_pixels(group, pixels))
        asyncio.run(group_pixels_verl.put_pixels(OTHER + group, torch.zeros_like(pixels)))
    return {group: pixels.numpy() for group, pixels in stored.items()}


def ranks_of(model: str, count: int) -> list[Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kind, actors = ray.remote(num_cpus=1)(Rank), []
    for rank in range(count):
        world = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
        own = {"MASTER_ADDR": "127.0.0.1", "VERL_PLATFORM": "cpu", "OMP_WAIT_POLICY": "PASSIVE"}
        env = {"env_vars": {**own, **{key: str(value) for key, value in world.items()}}}
        actors.append(kind.options(runtime_env=env).remote(model))
    return actors


def main() -> None:
    model, folder = sys.argv[1], Path(sys.argv[2])
    start()
    np.savez(folder / "stored.npz", **put(build(model)))
    for count in (1, 2):
        actors = ranks_of(model, count)
        ray.get([actor.measure.remote(str(folder / f"{count}.{rank}.npz")) for rank, actor in enumerate(actors)])
        for actor in actors:
            ray.kill(actor)
    tq.close()
    ray.shutdown()


if __name__ == "__main__":
    main()
