"""What is served, by how many, and within what limits."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from omniq_verl.doors import is_door
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.serving.limits import Limits
from omniq_verl.tasks import Scale, image_task

IMAGES = 3
"""The most a question shows: two that are compared, and a reference."""


@dataclass(frozen=True)
class ServerSettings:
    """What is served, by how many replicas, and within what limits."""

    model: EngineSpec | None = None
    """The reasoning model; ``kind`` is ``vllm`` or ``package.module:function``, which returns an ``AsyncEngine``."""
    rali: str | None = None
    """Folder of a RALI, served beside the model or alone."""
    limits: Limits = field(default_factory=Limits)
    replicas: tuple[int, int] = (1, 1)
    """The fewest and the most; Ray Serve starts more as questions come and gives them up again."""
    max_tokens: int = 1024
    """Longest answer."""
    seed: int = 0
    """Of sampled answers."""
    keys: frozenset[str] = frozenset()
    """Digests of the API keys that are let in; none: everyone is."""
    gpus: int = 0
    """Of each replica; 0: the CPU."""
    local: bool = False
    """Answer this machine alone: HAProxy listens where it is told to, but replicas, behind it, at all addresses."""

    scale: Scale | None = None
    """Of the reasoning model's scores; None: each task's own."""
    tasks: tuple[str, ...] = ()
    """Tasks that can be asked besides the known ones, ``package.module:object``. Callers cannot name others: a name
    that leads to a module runs it."""

    def __post_init__(self) -> None:
        if self.model is None and self.rali is None:
            raise ValueError("nothing to serve: give a model, a RALI, or both")
        if not 1 <= self.replicas[0] <= self.replicas[1]:
            raise ValueError(f"replicas: from 1, the fewest first; got {self.replicas}")

    def check(self) -> None:
        """Look at the models' folders before anything is started.

        Raises:
            ValueError: one is not there, or not safe to open.
        """
        for name in self.tasks:
            image_task(name, "--task")
        if self.model:
            self.model.check()
            if self.model.kind != "vllm" and not is_door(self.model.kind):
                raise ValueError(f"unknown engine {self.model.kind!r}: vllm or package.module:function")
        if self.rali and not (Path(self.rali) / "rali.json").is_file():
            raise ValueError(f"{self.rali}: no RALI there. Fix: a folder that omniq rali fit wrote")


def key_digest(key: str) -> str:
    """What is kept of an API key."""
    return hashlib.sha256(key.encode()).hexdigest()
