"""Measure the free memory, shared memory and disk space of this machine, and its GPUs. All sizes are in bytes."""

import math
import shutil
import subprocess
from dataclasses import dataclass
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
    """Total memory, not free memory, of each NVIDIA GPU of this machine."""


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
    """Return the total bytes of each NVIDIA GPU of this machine; empty if it has none or the driver does not answer."""
    query = [command, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        return tuple(int(line) * 2**20 for line in answer.splitlines())
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()
