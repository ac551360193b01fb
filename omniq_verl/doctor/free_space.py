"""Measure what this machine has left: memory, shared memory, disk; and its GPUs. All in bytes."""

import math
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class FreeSpace:
    """Free bytes; infinite where nothing can run out."""

    memory: float
    shared_memory: float
    disk: float
    """On the file system that will hold the output folder."""
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
    """Total bytes of each NVIDIA GPU of this machine; empty if there is none or the driver does not answer."""
    query = [command, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        return tuple(int(line) * 2**20 for line in answer.splitlines())
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


def cgroup_free_bytes(mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float:
    """Bytes this process's control groups still allow it; infinite if they set no limit.

    Args:
        mount: where the control groups are mounted (version 2), with ``memory`` below it (version 1).
        membership: the kernel's list of the process's groups, ``id:controllers:path`` per line.
    """
    free = math.inf
    for line in membership.read_text().splitlines() if membership.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, usage, cache = mount, "memory.max", "memory.current", "inactive_file"
        elif controllers == "memory":
            root, limit, usage = mount / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        # Inside of a container the path may be the host's and not exist; the mount itself is then the group.
        for depth in range(len(Path(path).parts)):
            group = root.joinpath(*Path(path).parts[1 : depth + 1])
            free = min(free, _group_free_bytes(group, limit, usage, cache))
    return free


def _group_free_bytes(group: Path, limit: str, usage: str, cache: str) -> float:
    files = (group / limit, group / usage, group / "memory.stat")
    if not all(os.path.exists(file) for file in files):
        return math.inf
    allowed, used, stat = (file.read_text().strip() for file in files)
    if allowed == "max":
        return math.inf
    counters = dict(line.split() for line in stat.splitlines())
    return int(allowed) - int(used) + int(counters.get(cache, 0))  # the kernel gives up that cache when asked
