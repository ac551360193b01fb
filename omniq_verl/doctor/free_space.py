"""Measure the free memory, shared memory and disk space of this machine, and its GPUs. All sizes are in bytes."""

import math
import os
import shutil
import subprocess
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import psutil

from omniq_verl.generation.cpu_memory import cgroup_free_bytes


@dataclass(frozen=True)
class FreeSpace:
    """Free bytes; infinite if there is no limit."""

    memory: float
    shared_memory: float
    disk: float
    """Free bytes of the file system that will hold the output folder."""
    gpus: tuple[int, ...] = ()
    """Total memory, not free memory, of each NVIDIA GPU of this machine that may be used."""


def measure_free_space(output_folder: Path) -> FreeSpace:
    """Measure the free space of this machine now. The output folder need not exist yet."""
    folder = output_folder.expanduser().absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    shared = Path("/dev/shm")
    return FreeSpace(
        memory=min(psutil.virtual_memory().available, cgroup_free_bytes()),
        shared_memory=shutil.disk_usage(shared).free if shared.is_dir() else math.inf,
        disk=shutil.disk_usage(existing).free,
        gpus=gpu_memory_sizes(),
    )


def gpu_memory_sizes(command: str = "nvidia-smi") -> tuple[int, ...]:
    """Return the total bytes of each NVIDIA GPU that this process may use; empty without one, or without a driver."""
    gpus, named = list(enumerate(_gpus_of_machine(command))), _named_gpus()
    if named is None:
        return tuple(size for _, (_, size) in gpus)
    return tuple(size for one in named for number, (uuid, size) in gpus if _is(one, number, uuid))


def usable_gpus(command: str = "nvidia-smi") -> tuple[str, ...]:
    """Return the NVIDIA GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them: numbers or UUIDs.

    All of this machine if the variable is not set.
    """
    named = _named_gpus()
    return tuple(map(str, range(len(_gpus_of_machine(command))))) if named is None else named


def _named_gpus() -> tuple[str, ...] | None:
    """Return what ``CUDA_VISIBLE_DEVICES`` names; None if it is not set. CUDA stops reading at the first -1 or gap."""
    words = os.environ.get("CUDA_VISIBLE_DEVICES")
    if words is None:
        return None
    return tuple(takewhile(lambda one: one not in ("", "-1"), map(str.strip, words.split(","))))


def _is(named: str, number: int, uuid: str) -> bool:
    """Return whether a name stands for a GPU; a UUID may be cut short."""
    return named == str(number) or (named.startswith("GPU-") and uuid.startswith(named))


def _gpus_of_machine(command: str) -> list[tuple[str, int]]:
    """Return UUID and total bytes of each NVIDIA GPU, in order."""
    query = [command, "--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        cells = [line.split(",") for line in answer.splitlines()]
        return [(uuid.strip(), int(size) * 2**20) for uuid, size in cells]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
