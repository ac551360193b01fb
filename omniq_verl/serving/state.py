"""State shared by a server's routes: models, limits, capacity, keys."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from omniq_verl.scoring.scorer import asked_tasks
from omniq_verl.serving.admission import Admission
from omniq_verl.serving.async_scorer import AsyncScorer
from omniq_verl.serving.limits import Limits
from omniq_verl.serving.micro_batcher import Batches
from omniq_verl.serving.request_parsing import BadRequest
from omniq_verl.tasks import Scale, Task, known_tasks


@dataclass
class Models:
    """The served models, at least one."""

    scorer: AsyncScorer | None = None
    rali: Batches | None = None
    rali_task: str | None = None

    def choose(self, asked: str | None, tasks: Sequence[Task]) -> str:
        """Return the model that answers, ``reasoning`` or ``rali``.

        Raises:
            BadRequest: the model is not served or cannot answer these tasks.
        """
        name = asked or ("reasoning" if self.scorer else "rali")
        if name not in self.names:
            raise BadRequest(422, f"model: {name} is not served here; available: {', '.join(self.names)}")
        if name == "rali" and [task.name for task in tasks] != [self.rali_task]:
            raise BadRequest(422, f"task: this RALI was fitted only for {self.rali_task}")
        return name

    @property
    def names(self) -> list[str]:
        return [name for name, there in (("reasoning", self.scorer), ("rali", self.rali)) if there]


@dataclass(frozen=True)
class Server:
    """Everything the routes need."""

    models: Models
    limits: Limits
    admission: Admission
    keys: frozenset[str] = frozenset()
    """Digests (``key_digest``) of the accepted keys; if empty, no key is required."""
    local: bool = False
    """Answer only this machine."""
    scale: Scale | None = None
    """Scale of the reasoning model's scores; None: each task's own."""
    tasks: tuple[str, ...] = ()
    """Custom tasks that can be asked besides the built-in ones."""

    @cached_property
    def known_tasks(self) -> list[Task]:
        """Return all tasks about a single image that can be asked here, in the wording of the model's family."""
        if self.models.scorer is not None and self.models.scorer.family is not None:
            asked = self.models.scorer.family.tasks.values()
            return [replace(one, scale=self.scale) if self.scale and one.scale else one for one in asked]
        names = dict.fromkeys((*(name for name, task in known_tasks().items() if task.images == 1), *self.tasks))
        return asked_tasks(list(names), self.scale)
