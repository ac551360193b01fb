"""verl's platform interface for a machine that has only a CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


class _CpuDeviceModule(ModuleType):
    """``torch.cpu`` with the part of ``torch.cuda``'s interface that verl calls.

    Memory figures are those of this process (resident set) and of the machine, in bytes.
    """

    def __init__(self) -> None:
        super().__init__("omniq_verl.cpu.device")
        self._peak_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def is_available(self) -> bool:
        return True

    def memory_allocated(self, device: Any = None) -> int:
        resident = psutil.Process().memory_info().rss
        self._peak_bytes = max(self._peak_bytes, resident)
        return resident

    memory_reserved = memory_allocated

    def max_memory_allocated(self, device: Any = None) -> int:
        self.memory_allocated()
        return self._peak_bytes

    max_memory_reserved = max_memory_allocated

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return memory.available, memory.total

    def reset_peak_memory_stats(self, device: Any = None) -> None:
        self._peak_bytes = 0

    def empty_cache(self) -> None:
        """Do nothing: PyTorch has no cache of host memory."""

    def ipc_collect(self) -> None:
        """Do nothing: there are no device IPC handles."""

    def set_device(self, device: Any) -> None:
        """Do nothing: there is only one device."""

    def get_device_name(self, device: Any = None) -> str:
        return "cpu"

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)


_DEVICE_MODULE = _CpuDeviceModule()


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """A platform with everything on the host; FSDP over gloo; Ray's "GPU" slots represent worker processes."""

    # verl declares properties.
    device_name = "cpu"  # pyright: ignore[reportAssignmentType]
    vendor_name = "cpu"  # pyright: ignore[reportAssignmentType]
    device_module = _DEVICE_MODULE  # pyright: ignore[reportAssignmentType]

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        # Selected by VERL_PLATFORM=cpu, never by probing: every machine has a CPU.
        return False

    def current_device(self) -> torch.device:
        # verl passes this to ``tensor.to``, where an index would mean an accelerator.
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        # Ray only knows the ids of built-in accelerators (vllm_async_server.py:1348 asks for them).
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def rollout_env_vars(self) -> dict[str, str]:
        # GiB of KV cache per vLLM engine; vLLM's default is half of the machine's memory.
        return {"VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")}

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def cudart(self) -> None:
        return None
