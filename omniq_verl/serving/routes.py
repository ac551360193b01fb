"""Handlers of the server's routes."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastapi import HTTPException, Request, Response

from omniq_verl.data.images import BadImage, check_pixels
from omniq_verl.scoring.scorer import BAD_IMAGE, Score
from omniq_verl.serving import schemas
from omniq_verl.serving.admission import Draining
from omniq_verl.serving.openapi import FAILURES
from omniq_verl.serving.request_parsing import BadRequest, File, read_compare, read_score
from omniq_verl.serving.state import Server
from omniq_verl.serving.verl_omni_protocol import NotPlain, dump_plain, load_plain
from omniq_verl.tasks import Task, shown

AGAIN = {"Retry-After": "1"}
"""Seconds that a client should wait when the server is at capacity."""
Found = TypeVar("Found")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Questions:
    """Routes that query a model."""

    server: Server
    metrics: Any = None

    async def score_images(self, request: Request) -> schemas.ScoreAnswers:
        """Score one or more images for one or more tasks."""
        question, files, prompts = await read_score(request, self.server.limits)
        tasks = _tasks(question.task, self.server)
        found = await self._score(question.model, files, tasks, prompts, question.samples, question.temperature)
        return schemas.score_answers([file.name for file in files], found, question.reasoning)

    async def compare_pairs(self, request: Request) -> schemas.CompareAnswers:
        """Decide which of two images is better; each pair is asked in both orders."""
        scorer, limits = self.server.models.scorer, self.server.limits
        if scorer is None:
            raise BadRequest(422, "comparisons need a reasoning model; this server has only RALI")
        question, pairs = await read_compare(request, limits)
        with self.server.admission.hold(2 * len(pairs)):
            found = await in_time(scorer.compare(pairs, question.samples, question.temperature), limits.seconds)
        return schemas.CompareAnswers(results=[schemas.compare_answer(one, question.reasoning) for one in found])

    async def verl_omni(self, task: str, request: Request) -> Response:
        """Endpoint for verl-omni's http_scorer_client; see omniq_verl.serving.verl_omni_protocol."""
        try:
            files, prompts = load_plain(await request.body(), self.server.limits)
        except NotPlain as error:
            raise BadRequest(422, str(error)) from None
        tasks = _tasks(task, self.server)
        if tasks[0].scale is None:
            raise BadRequest(422, f"task: {task} gives no score")
        found = await self._score(None, files, tasks, prompts, 1, 1.0)
        return dump_plain([by_task[task] for by_task in found])

    async def _score(
        self,
        model: str | None,
        files: Sequence[File],
        tasks: Sequence[Task],
        prompts: Sequence[str | None],
        samples: int,
        temperature: float,
    ) -> list[dict[str, Score]]:
        needs = [task.name for task in tasks if task.needs_text]
        if needs and not all(prompts):
            raise BadRequest(422, f"prompt: the task {needs[0]} needs the text the image was made from")
        models = self.server.models
        scorer = None if models.choose(model, tasks) == "rali" else models.scorer
        with self.server.admission.hold(len(files) * len(tasks)):
            if scorer is None:
                asked = asyncio.gather(*map(self._by_rali, files))
            else:
                asked = scorer.score(files, tasks, prompts, samples, temperature)
            found = await in_time(asked, self.server.limits.seconds)
        if self.metrics:
            self.metrics.count(score for by_task in found for score in by_task.values())
        return found

    async def _by_rali(self, file: File) -> dict[str, Score]:
        rali, task = self.server.models.rali, self.server.models.rali_task
        assert rali is not None and task is not None  # Models.choose has chosen it
        try:
            check_pixels(file.data, self.server.limits.pixels)
        except BadImage as error:
            return {task: Score(file.name, task, BAD_IMAGE, error=str(error))}
        return {task: replace(await rali.score(file.data), image=file.name)}


@dataclass(frozen=True)
class State:
    """Routes that report on the server."""

    server: Server

    async def known_tasks(self) -> schemas.Tasks:
        """List the models and tasks of this server."""
        models = self.server.models
        about = [schemas.task_about(task) for task in self.server.known_tasks]
        return schemas.Tasks(models=models.names, tasks=about, rali_task=models.rali_task)

    async def alive(self) -> dict[str, str]:
        """Report that the process answers."""
        return {"status": "ok"}

    async def ready(self) -> dict[str, Any]:
        """Report whether the models are ready."""
        if self.server.admission.draining:
            raise Draining
        if self.server.models.scorer:
            try:
                await self.server.models.scorer.engine.check()
            except RuntimeError as error:
                raise _failed(error) from None
        return {"status": "ok", "under_way": self.server.admission.taken}


async def in_time(asked: Awaitable[Found], seconds: float) -> Found:
    """The result of a question to a model.

    Raises:
        BadRequest: it took longer than ``seconds``.
        HTTPException: the engine has failed.
    """
    try:
        return await asyncio.wait_for(asked, seconds)
    except asyncio.TimeoutError:
        raise BadRequest(504, FAILURES[504]) from None
    except RuntimeError as error:
        raise _failed(error) from None


def _failed(error: RuntimeError) -> HTTPException:
    """503 for the client; the engine's own message only goes to the log."""
    logger.error("the engine has failed: %s", error)
    return HTTPException(503, FAILURES[503], AGAIN)


def _tasks(names: str | list[str], server: Server) -> list[Task]:
    known = {task.name: task for task in server.known_tasks}
    names = [names] if isinstance(names, str) else names
    if unknown := [name for name in names if name not in known]:
        raise BadRequest(422, f"task: unknown task {shown(unknown[0])}; known here: {', '.join(known)}")
    tasks = [known[name] for name in names]
    if not tasks or len({task.name for task in tasks}) < len(tasks):
        raise BadRequest(422, "task: provide at least one task and do not repeat any")
    return tasks
