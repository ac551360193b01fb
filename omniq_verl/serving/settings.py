"""Settings of a server: models, replicas, limits, keys."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from omniq_verl.families.family import Family
from omniq_verl.generation.direct import BOTH, MODES, check_mode
from omniq_verl.generation.request import Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.object_reference import is_reference
from omniq_verl.serving.limits import Limits
from omniq_verl.tasks import Scale, image_task

IMAGES = 3
"""Maximum number of images in a question: two images to compare and a reference."""


@dataclass(frozen=True)
class ServerSettings:
    """Settings of a server: models, replicas, limits, keys."""

    model: EngineSpec | None = None
    """The reasoning model. ``kind`` is ``vllm``, or ``package.module:function``, which returns an ``AsyncEngine``."""
    rali: str | None = None
    """Folder of a RALI model, served with or without the reasoning model."""
    limits: Limits = field(default_factory=Limits)
    replicas: tuple[int, int] = (1, 1)
    """Minimum and maximum number of replicas; Ray Serve scales between them with the load."""
    max_tokens: int = 1024
    """Maximum length of an answer, in tokens."""
    seed: int = 0
    """Seed of sampled answers."""
    keys: frozenset[str] = frozenset()
    """SHA-256 digests of the accepted API keys; if empty, no key is required."""
    gpus: int = 0
    """GPUs per replica; 0: CPU."""
    local: bool = False
    """Answer only this machine. HAProxy listens on the given host, but the replicas behind it use all interfaces."""

    scale: Scale | None = None
    """Scale of the reasoning model's scores; None: each task's own."""
    tasks: tuple[str, ...] = ()
    """Custom tasks that can be asked besides the built-in ones, ``package.module:object``. Clients cannot name others,
    because importing a module runs it."""
    family: Family | None = None
    """Family of the reasoning model, if it is not one of this package: its wording and parser are used."""
    mode: str | None = None
    """``reason``, ``direct`` or ``both``, for requests that name no mode; None: the family's own."""

    def __post_init__(self) -> None:
        if self.model is None and self.rali is None:
            raise ValueError("nothing to serve: no model is given. Fix: give --model, --rali or both")
        if not 1 <= self.replicas[0] <= self.replicas[1]:
            raise ValueError(f"replicas must be (minimum, maximum) with 1 <= minimum <= maximum; got {self.replicas}")
        Sampling(max_tokens=self.max_tokens)  # raises an error here, not in every answer

    def check_modes(self) -> None:
        """Check ``mode`` against the family.

        Raises:
            ValueError: the mode is unknown, or the family does not support it.
        """
        for mode in MODES if self.mode == BOTH else [self.mode] if self.mode else []:
            check_mode(mode)
            if self.family is not None:
                self.family.check_mode(mode)

    def check(self) -> None:
        """Check the models' folders before anything is started.

        Raises:
            ValueError: a model is missing or not safe to load.
        """
        self.check_modes()
        for name in self.tasks:
            image_task(name, "--task")
        if self.model:
            self.model.check()
            if self.model.kind != "vllm" and not is_reference(self.model.kind):
                raise ValueError(f"unknown engine {self.model.kind!r}. Fix: use vllm or package.module:function")
        if self.rali and not (Path(self.rali) / "rali.json").is_file():
            raise ValueError(f"{self.rali}: no RALI model there. Fix: use a folder that omniq rali fit wrote")


def key_digest(key: str) -> str:
    """SHA-256 digest of an API key; the key itself is not stored."""
    return hashlib.sha256(key.encode()).hexdigest()
