"""Runs in one process or in several started by ``torchrun``."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

_LONGEST_WAIT = timedelta(hours=6)
"""Maximum wait for the first process, which prepares the images for all."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run; a context manager that leaves the process group at the end."""

    number: int
    rank: int
    device: torch.device

    @classmethod
    def join(cls) -> "Ranks":
        """Join the other processes if ``torchrun`` started several."""
        number, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        on_gpu = torch.cuda.is_available()
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
        if on_gpu:
            torch.cuda.set_device(device)
        if number > 1:
            dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_LONGEST_WAIT)
        return cls(number, rank, device)

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_error: object) -> None:
        if self.number > 1:
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """True in the process that writes files."""
        return self.rank == 0

    @contextmanager
    def first_then_others(self) -> Iterator[None]:
        """Run the body in the first process, then in the others."""
        if self.number > 1 and not self.first:
            dist.barrier()
        yield
        if self.number > 1 and self.first:
            dist.barrier()

    def share(self, images: int) -> slice:
        """This process's part of a batch."""
        each = images // self.number
        return slice(self.rank * each, (self.rank + 1) * each)

    def wrap(self, module: nn.Module) -> nn.Module:
        """Wrap the module so that gradients are averaged over the processes."""
        if self.number == 1:
            return module
        return DistributedDataParallel(module, device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def gather(self, embeddings_bD: torch.Tensor) -> torch.Tensor:
        """Embeddings of all processes ``[B, D]``; gradients flow only to this process's own."""
        if self.number == 1:
            return embeddings_bD
        parts = [torch.empty_like(embeddings_bD) for _ in range(self.number)]
        dist.all_gather(parts, embeddings_bD.detach().contiguous())
        parts[self.rank] = embeddings_bD
        return torch.cat(parts)
