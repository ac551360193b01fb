"""Decide how much of a CPU machine's memory vLLM gets: what the model needs, within the free memory. In bytes."""

import math
import os
import re
from pathlib import Path

import psutil

GIB = 2**30
_SPARED = 0.9
"""Largest share of the free memory that is given; the rest is left for other programs."""
_BESIDES = 6 * GIB
"""Given in addition to the weights: about 2 GiB for the process, the rest for keys and values. Qwen2.5-VL-7B needs 0.46
GiB of these for 8,192 tokens. All of it is written to at the start, which took 30 s for 18 GiB."""
_COPIES = 2
"""Largest growth of the weights on loading: float32 takes twice the bytes of bfloat16."""
_SMALLEST = 0.01


def cpu_share(asked: float | None, weights: int, total: float, free: float) -> float:
    """The share of a machine's memory for vLLM.

    Args:
        asked: share requested by the user; None takes whatever fits.
        weights: bytes of the model's weights; 0 if unknown, for example before the model is downloaded.
        total: memory of the machine.
        free: free memory.

    Raises:
        ValueError: that much is not free. The message states what fits.
    """
    most = math.floor(100 * _SPARED * free / total) / 100
    if asked is None:
        need = (_COPIES * weights + _BESIDES) / total if weights else 1.0
        return max(min(need, most), _SMALLEST)
    if asked * total > free:
        fix = f"--memory {most:.2f}, or leave the option out" if most >= _SMALLEST else "end other programs"
        raise ValueError(
            f"--memory {asked:g} is {asked * total / GIB:.1f} of {total / GIB:.1f} GiB, and only {free / GIB:.1f} GiB"
            f" are free. Fix: {fix}"
        )
    return asked


def measured_memory(nodes: Path = Path("/sys/devices/system/node")) -> tuple[float, float]:
    """Total and free memory of the NUMA node with the smallest free share: vLLM takes a share of a node's memory."""
    machine = psutil.virtual_memory()
    found = [_node_memory(path.read_text()) for path in sorted(nodes.glob("node*/meminfo"))]
    allowed = cgroup_free_bytes()
    whole = [(float(machine.total), float(machine.available))]
    total, free = min([one for one in found if one[0]] or whole, key=lambda one: one[1] / one[0])
    return total, min(free, machine.available, allowed)


def _node_memory(text: str) -> tuple[float, float]:
    """Total and free memory, counted as in vLLM."""
    kib = {name: int(value) for name, value in re.findall(r"Node \d+ (\S+):\s+(\d+)", text)}
    free = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")
    return 1024.0 * kib.get("MemTotal", 0), 1024.0 * sum(kib.get(name, 0) for name in free)


def weight_bytes(model: str) -> int:
    """Bytes of the weight files in a model's folder; 0 if it is not a folder."""
    return sum(path.stat().st_size for path in Path(model).glob("*.safetensors"))


def cgroup_free_bytes(mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float:
    """Bytes that this process's control groups still allow; infinite if they set no limit.

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
        # Inside a container the path may be the host's and not exist; the mount itself is then the group.
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
    return int(allowed) - int(used) + int(counters.get(cache, 0))  # the kernel frees that cache on demand
