"""The server as a Ray Serve deployment; each replica has its own models."""

from typing import Any

from ray import serve

from omniq_verl.generation.engines import open_async_engine
from omniq_verl.serving.settings import ServerSettings

_HEALTH_SECONDS = 10.0
CPUS = 1
"""That Ray reserves for each replica."""


@serve.ingress()
class Replica:
    """One replica: a set of models and their routes."""

    def __init__(self, settings: ServerSettings):
        from omniq_verl.serving.admission import Admission
        from omniq_verl.serving.state import Server

        self._room = Admission(settings.limits.waiting)
        self._models = open_models(settings)
        about = (settings.keys, settings.local, settings.scale, settings.tasks)
        self._server = Server(self._models, settings.limits, self._room, *about)

    def __serve_build_asgi_app__(self) -> Any:
        from omniq_verl.serving.app import build_app
        from omniq_verl.serving.metrics import Metrics

        return build_app(self._server, Metrics())

    async def drain(self) -> None:
        """Reject new requests with 503 and finish the running ones."""
        self._room.draining = True

    async def check_health(self) -> None:
        """Called by Ray Serve, which replaces the replica if this raises.

        Raises:
            RuntimeError: the engine has died.
        """
        if self._models.scorer:
            await self._models.scorer.engine.check()


def open_models(settings: ServerSettings) -> Any:
    """Load the models."""
    from omniq_verl.serving.async_scorer import AsyncScorer
    from omniq_verl.serving.micro_batcher import Batches
    from omniq_verl.serving.state import Models

    models = Models()
    if settings.model:
        engine = open_async_engine(settings.model)
        read = (settings.family, settings.mode)
        models.scorer = AsyncScorer(engine, settings.max_tokens, settings.seed, settings.limits.pixels, *read)
    if settings.rali:
        from omniq_verl.rali import RaliScorer

        scorer = RaliScorer(settings.rali)
        models.rali, models.rali_task = Batches(scorer), scorer.about.task
    return models


def deployment(settings: ServerSettings) -> serve.Application:
    """The Ray Serve application."""
    fewest, most = settings.replicas
    # Let every request reach a replica: the replica itself decides whether it has capacity.
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
        logging_config={"enable_access_log": False},
        ray_actor_options={"num_cpus": CPUS, "num_gpus": settings.gpus},
        **options,
    )(Replica).bind(settings)
