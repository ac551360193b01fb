"""The server as a deployment of Ray Serve: replicas, each with models of its own."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import serve

from omniq_verl.generation.engines import EngineSpec, open_async_engine
from omniq_verl.serving.limits import Limits

IMAGES = 3
"""The most a question shows: two that are compared, and a reference."""
_HEALTH_SECONDS = 10.0


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
        if self.model:
            self.model.check()
        if self.rali and not (Path(self.rali) / "rali.json").is_file():
            raise ValueError(f"{self.rali}: no RALI there. Mend: a folder that omniq rali fit wrote")


@serve.ingress()
class Replica:
    """One set of models, and the routes to it."""

    def __init__(self, settings: ServerSettings):
        from omniq_verl.serving.room import Room
        from omniq_verl.serving.state import Server

        self._room = Room(settings.limits.waiting)
        self._models = open_models(settings)
        self._server = Server(self._models, settings.limits, self._room, settings.keys, settings.local)

    def __serve_build_asgi_app__(self) -> Any:
        from omniq_verl.serving.app import build_app
        from omniq_verl.serving.metrics import Metrics

        return build_app(self._server, Metrics())

    def reconfigure(self, config: dict[str, bool]) -> None:
        """Ray Serve's way to tell all replicas something."""
        self._room.draining = config["draining"]

    async def check_health(self) -> None:
        """Ray Serve replaces a replica of which this raises.

        Raises:
            RuntimeError: the engine has died.
        """
        if self._models.judge:
            await self._models.judge.engine.check()


def open_models(settings: ServerSettings) -> Any:
    """Load what is served."""
    from omniq_verl.serving.batches import Batches
    from omniq_verl.serving.judge import Judge
    from omniq_verl.serving.state import Models

    models = Models()
    if settings.model:
        engine = open_async_engine(settings.model)
        models.judge = Judge(engine, settings.max_tokens, settings.seed, settings.limits.pixels)
    if settings.rali:
        from omniq_verl.rali import RaliScorer

        scorer = RaliScorer(settings.rali)
        models.rali, models.rali_task = Batches(scorer), scorer.about.task
    return models


def deployment(settings: ServerSettings, draining: bool = False) -> serve.Application:
    """The application; another call with ``draining`` tells its replicas to begin nothing new."""
    fewest, most = settings.replicas
    # Requests reach a replica in any case, so that it is the one to say whether there is room.
    ongoing = 4 * settings.limits.waiting
    options: dict[str, Any] = {"num_replicas": fewest}
    if most > fewest:
        target = settings.limits.waiting / 4
        options = {
            "autoscaling_config": {
                "min_replicas": fewest,
                "max_replicas": most,
                "target_ongoing_requests": target,
            }
        }
    return serve.deployment(
        name="scores",
        max_ongoing_requests=ongoing,
        graceful_shutdown_timeout_s=settings.limits.seconds + 5,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=_HEALTH_SECONDS,
        user_config={"draining": draining},
        logging_config={"enable_access_log": False},
        ray_actor_options={"num_cpus": 1, "num_gpus": settings.gpus},
        **options,
    )(Replica).bind(settings)
