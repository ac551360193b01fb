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
from omniq_verl.serving.async_scorer import Shown, modes_of
from omniq_verl.serving.event_stream import EventStream
from omniq_verl.serving.openapi import FAILURES
from omniq_verl.serving.request_parsing import BadRequest, File, Prompts, read_compare, read_score
from omniq_verl.serving.state import Server
from omniq_verl.serving.verl_omni_protocol import NotPlain, dump_plain, load_plain
from omniq_verl.tasks import Task, shown

AGAIN = {"Retry-After": "1"}
"""Seconds that a client should wait when the server is at capacity."""
Found = TypeVar("Found")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """A checked question about images."""

    model: str
    files: Sequence[File]
    tasks: Sequence[Task]
    prompts: Prompts
    samples: int = 1
    temperature: float = 1.0
    modes: tuple[str, ...] = ("reason",)

    @property
    def size(self) -> int:
        """How much of the server's capacity the question takes."""
        return len(self.files) * len(self.tasks) * len(self.modes)


@dataclass(frozen=True)
class Questions:
    """Routes that query a model."""

    server: Server
    metrics: Any = None

    async def score_images(self, request: Request) -> schemas.ScoreAnswers | Response:
        """Score one or more images for one or more tasks."""
        question, files, prompts = await read_score(request, self.server.limits)
        asked = self._asked(question, files, prompts)

        async def work(tell: Shown | None = None) -> schemas.ScoreAnswers:
            found, *direct = [await self._answered(asked, mode, tell) for mode in asked.modes]
            names = [file.name for file in files]
            return schemas.score_answers(names, found, question.reasoning, *direct)

        return await self._sent(question.stream, asked.size, work)

    async def compare_pairs(self, request: Request) -> schemas.CompareAnswers | Response:
        """Decide which of two images is better; each pair is asked in both orders."""
        scorer, limits = self.server.models.scorer, self.server.limits
        if scorer is None:
            raise BadRequest(422, "comparisons need a reasoning model; this server has only RALI")
        if scorer.family is not None and "reason" not in scorer.family.modes:
            raise BadRequest(422, f"{scorer.family.title} cannot compare images: it writes no answers")
        question, pairs = await read_compare(request, limits)

        async def work(tell: Shown | None = None) -> schemas.CompareAnswers:
            found = scorer.compare(pairs, question.samples, question.temperature, tell)
            answers = [schemas.compare_answer(one, question.reasoning) for one in await in_time(found, limits.seconds)]
            return schemas.CompareAnswers(results=answers)

        return await self._sent(question.stream, 2 * len(pairs), work)

    async def _sent(self, stream: bool, size: int, work: Any) -> Any:
        """Return the response to a question: the result of ``work``, or events that end in it."""
        if stream:
            return EventStream(self.server.admission.hold(size), work)
        with self.server.admission.hold(size):
            return await work()

    async def verl_omni(self, task: str, request: Request) -> Response:
        """Endpoint for verl-omni's http_scorer_client; see omniq_verl.serving.verl_omni_protocol."""
        try:
            files, prompts = load_plain(await request.body(), self.server.limits)
        except NotPlain as error:
            raise BadRequest(422, str(error)) from None
        tasks = _tasks(task, self.server)
        if tasks[0].scale is None:
            raise BadRequest(422, f"task: {task} gives no score")
        return dump_plain(await self.plain_scores(tasks[0], files, [*prompts]))

    async def plain_scores(self, task: Task, files: Sequence[File], prompts: Prompts) -> list[Score]:
        """Return the scores of one task, with the model and mode of a request that names neither.

        Raises:
            BadRequest: the question is invalid, or the answer takes too long.
        """
        model = self.server.models.choose(None, [task])
        modes = self._modes(model, None, [task])[:1]
        asked = Asked(model, files, [task], self._prompts([task], prompts), modes=modes)
        with self.server.admission.hold(asked.size):
            found = await self._answered(asked, asked.modes[0])
        return [by_task[task.name] for by_task in found]

    def _asked(self, question: schemas.ScoreQuestion, files: Sequence[File], prompts: Prompts) -> "Asked":
        """Check a question against the models."""
        tasks = _tasks(question.task, self.server)
        prompts = self._prompts(tasks, prompts)
        model = self.server.models.choose(question.model, tasks)
        modes = self._modes(model, question.mode, tasks)
        if modes == ("direct",) and question.samples > 1:
            raise BadRequest(422, "samples: mode direct does not sample. Fix: leave out samples")
        return Asked(model, files, tasks, prompts, question.samples, question.temperature, modes)

    def _prompts(self, tasks: Sequence[Task], prompts: Prompts) -> Prompts:
        needs = [task.name for task in tasks if task.needs_text]
        if needs and not all(prompt and prompt.strip() for prompt in prompts):
            raise BadRequest(422, f"prompt: the task {needs[0]} needs the text the image was made from")
        return prompts

    def _modes(self, model: str, mode: str | None, tasks: Sequence[Task]) -> tuple[str, ...]:
        scorer = self.server.models.scorer
        if model == "rali" or scorer is None:
            if mode is not None:
                raise BadRequest(422, "mode: it has no effect on RALI. Fix: leave it out")
            return ("reason",)
        try:
            modes = modes_of(mode or scorer.mode)
            for one in modes:
                scorer.check_mode(one)
            if "direct" in modes:
                for task in tasks:
                    scorer.texts(task)
        except ValueError as error:
            raise BadRequest(422, f"mode: {error}") from None
        return modes

    async def _answered(self, asked: "Asked", mode: str, tell: Shown | None = None) -> list[dict[str, Score]]:
        """Return the scores of one mode, and count them in the metrics."""
        scorer = self.server.models.scorer
        if asked.model == "rali" or scorer is None:
            found = asyncio.gather(*map(self._by_rali, asked.files))
        else:
            samples = 1 if mode == "direct" else asked.samples
            drawn = (samples, asked.temperature, mode, tell)
            found = scorer.score(asked.files, asked.tasks, asked.prompts, *drawn)
        scores = await in_time(found, self.server.limits.seconds)
        if self.metrics:
            self.metrics.count(score for by_task in scores for score in by_task.values())
        return scores

    async def _by_rali(self, file: File) -> dict[str, Score]:
        rali, task = self.server.models.rali, self.server.models.rali_task
        assert rali is not None and task is not None  # Models.choose has selected it
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
        found = schemas.Tasks(models=models.names, tasks=about, rali_task=models.rali_task)
        if scorer := models.scorer:
            found.modes, found.mode = scorer.modes, scorer.mode
            found.family = scorer.family and scorer.family.name
        return found

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
    """Await the result of a question to a model.

    Raises:
        BadRequest: the result took longer than ``seconds``.
        HTTPException: the engine has failed.
    """
    try:
        return await asyncio.wait_for(asked, seconds)
    except asyncio.TimeoutError:
        raise BadRequest(504, FAILURES[504]) from None
    except RuntimeError as error:
        raise _failed(error) from None


def _failed(error: RuntimeError) -> HTTPException:
    """Return a 503 for the client. The engine's own message only goes to the log."""
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
