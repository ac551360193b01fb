"""Reads load and memory of one GPU several times per second in the background."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import TracebackType

GIB = 2**30
_QUERY = ("memory.used", "utilization.gpu")


@dataclass(frozen=True)
class Sample:
    """One reading."""

    when: float
    """Time of the reading (``time.time()``)."""
    memory: float
    """Bytes in use on the whole card, over all processes."""
    load: float
    """Percent of the last sampling interval in which a kernel ran."""


@dataclass(frozen=True)
class Usage:
    """Summary of the samples in a time span."""

    peak_gib: float
    mean_load: float
    """Mean load in percent."""


def selected_card() -> str:
    """Index or UUID of the first GPU visible to CUDA programs started from here."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "0"


def card_reader() -> Callable[[], tuple[float, float]] | None:
    """A function that returns bytes in use and load in percent, or None if there is no NVIDIA GPU or driver."""
    try:
        return _nvml_reader()
    except Exception:  # pynvml is missing or fails: no library, no driver, no such card
        return _smi_reader() if card_facts() else None


def _nvml_reader() -> Callable[[], tuple[float, float]]:
    import pynvml

    pynvml.nvmlInit()
    card = selected_card()
    by_index = card.isdecimal()
    handle = pynvml.nvmlDeviceGetHandleByIndex(int(card)) if by_index else pynvml.nvmlDeviceGetHandleByUUID(card)

    def read() -> tuple[float, float]:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle).used
        return float(memory), float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)

    read()  # fail here if the card does not support it
    return read


def _smi_reader() -> Callable[[], tuple[float, float]]:
    def read() -> tuple[float, float]:
        memory, load = (float(value) for value in _ask_smi(_QUERY))
        return memory * 2**20, load

    return read


def _ask_smi(fields: Sequence[str]) -> list[str]:
    """Query values with ``nvidia-smi --query-gpu``.

    Raises:
        OSError: nvidia-smi is not installed.
        subprocess.SubprocessError: it failed or did not answer.
    """
    command = ["nvidia-smi", "-i", selected_card(), f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    return [value.strip() for value in done.stdout.splitlines()[0].split(",")]


def card_facts() -> dict[str, str]:
    """Name, driver and memory (as text and in bytes) of the card; empty if there is no NVIDIA GPU."""
    if not shutil.which("nvidia-smi"):
        return _nvml_facts()
    try:
        name, driver, memory = _ask_smi(("name", "driver_version", "memory.total"))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return _nvml_facts()
    return _facts(name, driver, float(memory) * 2**20)


def _facts(name: str, driver: str, memory: float) -> dict[str, str]:
    return {"card": name, "driver": driver, "memory": f"{memory / GIB:.0f} GiB", "bytes": f"{memory:.0f}"}


def _nvml_facts() -> dict[str, str]:
    try:
        import pynvml

        pynvml.nvmlInit()
        card = selected_card()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(card) if card.isdecimal() else 0)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total
        return _facts(str(pynvml.nvmlDeviceGetName(handle)), str(pynvml.nvmlSystemGetDriverVersion()), memory)
    except Exception:  # as in card_reader
        return {}


class Watch:
    """Reads the card in a thread until it is closed; does nothing without a GPU."""

    def __init__(self, every: float = 0.2):
        self.samples: list[Sample] = []
        self._read, self._every, self._stop = card_reader(), every, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        if self._read:
            self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._read:
            self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            try:
                memory, load = self._read()
            except Exception:  # a failed reading only leaves a gap
                continue
            self.samples.append(Sample(time.time(), memory, load))


def usage(samples: Sequence[Sample], start: float, end: float) -> Usage | None:
    """Peak memory and mean load between two values of ``time.time()``; None if there is no reading between them."""
    chosen = [sample for sample in samples if start <= sample.when <= end]
    if not chosen:
        return None
    return Usage(max(sample.memory for sample in chosen) / GIB, fmean(sample.load for sample in chosen))


def phase_spans(start: float, step: float, phases: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Start and end of each phase of a step.

    verl reports durations, not times. The phases are consecutive and end with the step; the time that verl does not
    measure, handing the prompts to the rollout workers, comes before the first phase.

    Args:
        start: start of the step (``time.time()``).
        step: duration of the step in seconds.
        phases: seconds of each phase, in order.
    """
    begun = start + step - sum(phases.values())
    spans = {}
    for name, seconds in phases.items():
        spans[name] = (begun, begun + seconds)
        begun += seconds
    return spans
