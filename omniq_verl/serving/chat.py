"""``POST /v1/chat/completions``: a question about images in the shape of OpenAI's chat API."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request as HttpRequest

from omniq_verl.data.base64_text import BadBase64, decode_base64, is_data_url
from omniq_verl.data.files import whole_text
from omniq_verl.data.images import BadImage
from omniq_verl.generation.request import ERROR, LENGTH, Answer, Request, Sampling, seed_of
from omniq_verl.serving.async_scorer import AsyncScorer, modes_of
from omniq_verl.serving.chat_schemas import ChatAnswer, ChatQuestion, Choice, Reply, Usage
from omniq_verl.serving.limits import Limits
from omniq_verl.serving.request_parsing import BadRequest, File, read_json
from omniq_verl.serving.routes import in_time
from omniq_verl.serving.schemas import score_answer
from omniq_verl.serving.settings import IMAGES
from omniq_verl.serving.state import Server
from omniq_verl.tasks import IMAGE_PLACEHOLDER, ForbiddenText, Task, shown, text_fault

CHAT = "/v1/chat/completions"
_PREFIX = "omniq/"


@dataclass(frozen=True)
class Asked:
    """A parsed question."""

    task: Task
    files: Sequence[File]
    text: str
    """The user's turn with a placeholder for each image; if empty, the task's own question is asked."""
    prompt: str | None
    """The text the image was generated from, for the task's own question."""
    sampling: Sampling
    seed: int
    mode: str = "reason"
    """How the task's own question is answered: ``reason`` or ``direct``."""

    def request(self, scorer: AsyncScorer, images: Sequence[bytes], digest: str) -> Request:
        """Build the request to the engine. With the task's own question, it is the same as for ``POST /v1/score``.

        Args:
            scorer: the model.
            images: contents of the image files.
            digest: digest of all images.

        Raises:
            ForbiddenText: the text contains control tokens.
        """
        if not self.text:
            name = self.files[0].name
            return scorer.request(name, images[0], digest, self.task, self.prompt, self.mode, self.seed)
        turn = {"role": "user", "content": self.text}
        return Request("chat", [turn], tuple(images), seed_of(f"chat/{self.text}/{digest}", self.seed))


@dataclass(frozen=True)
class Chats:
    """The route."""

    server: Server
    metrics: Any = None

    async def complete(self, request: HttpRequest) -> ChatAnswer:
        """Ask about images in the shape of OpenAI's chat API; the model's name selects the task."""
        scorer = self.server.models.scorer
        if scorer is None:
            raise BadRequest(422, "chats need a reasoning model; this server has only RALI")
        question = await read_json(request, ChatQuestion, "application/json")
        mode = modes_of(scorer.mode)[0]
        asked = read_chat(question, self.server, scorer.max_tokens, scorer.seed, mode)
        answers = await self._answers(scorer, asked)
        score = scorer.read(asked.files[0].name, asked.task, answers)
        if self.metrics:
            self.metrics.count([score])
        return ChatAnswer(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=question.model,
            choices=[_choice(index, answer) for index, answer in enumerate(answers)],
            usage=Usage(completion_tokens=sum(answer.tokens for answer in answers)),
            omniq=score_answer(score, reasoning=False),
        )

    async def _answers(self, scorer: AsyncScorer, asked: Asked) -> list[Answer]:
        try:
            with self.server.admission.hold(len(asked.files)):
                awaited = scorer.ask(asked.files, partial(asked.request, scorer), asked.sampling)
                answers = await in_time(awaited, self.server.limits.seconds)
        except (BadImage, ForbiddenText) as error:
            raise BadRequest(422, f"messages: {error}") from None
        if all(answer.finish_reason == ERROR for answer in answers):
            raise BadRequest(422, f"the model cannot be asked this: {answers[0].text}")
        return answers


def _choice(index: int, answer: Answer) -> Choice:
    reason = "length" if answer.finish_reason == LENGTH else "stop"
    return Choice(index=index, message=Reply(content=whole_text(answer.text)), finish_reason=reason)


def read_chat(question: ChatQuestion, server: Server, max_tokens: int, seed: int, mode: str = "reason") -> Asked:
    """Check a question against the server's tasks and limits, and decode its images.

    Args:
        question: the request's body.
        server: the server whose tasks and limits apply.
        max_tokens: maximum length of an answer on this server.
        seed: the server's seed.
        mode: the server's default mode.

    Raises:
        BadRequest: the question is invalid.
    """
    if question.stream:
        raise BadRequest(422, "stream: answers are not streamed. Fix: leave stream out, or send false")
    task, (text, urls) = task_of_model(question.model, server), _turn(question)
    _check_text(text, question.prompt, server.limits)
    if not text:
        _check_own(task, question.prompt, len(urls))
        _check_mode(task, question.n, mode)
    elif question.prompt is not None:
        raise BadRequest(422, "prompt: it has no effect on a turn with a text. Fix: leave one of them out")
    files = [decoded_url(url, number) for number, url in enumerate(urls)]
    seed = seed if question.seed is None else question.seed
    return Asked(task, files, text, question.prompt, _sampling(question, server.limits, max_tokens), seed, mode)


def task_of_model(model: str, server: Server) -> Task:
    """Return the task that a model's name selects.

    Raises:
        BadRequest: the server does not know this name.
    """
    known = {task.name: task for task in server.known_tasks}
    name = model.removeprefix(_PREFIX)
    if name not in known:
        raise BadRequest(422, f"model: unknown task {shown(name)}; known here: {', '.join(known)}")
    return known[name]


def _turn(question: ChatQuestion) -> tuple[str, list[str]]:
    """Return the turn's text with a placeholder for each image ("" if it has only images), and the images' URLs."""
    content = question.messages[0].content
    parts = [] if isinstance(content, str) else content
    urls = [part.image_url.url for part in parts if part.image_url is not None]
    if not 1 <= len(urls) <= IMAGES:
        raise BadRequest(422, f"messages: the turn has {len(urls)} images; send 1 to {IMAGES} as parts image_url")
    words = "".join(part.text or "" for part in parts)
    if fault := text_fault(words):
        raise BadRequest(422, f"messages: the text {fault}")
    text = "".join(IMAGE_PLACEHOLDER if part.image_url is not None else part.text or "" for part in parts)
    return (text if words.strip() else ""), urls


def _check_text(text: str, prompt: str | None, limits: Limits) -> None:
    if fault := text_fault(prompt or ""):
        raise BadRequest(422, f"prompt: it {fault}")
    if max(len(text.replace(IMAGE_PLACEHOLDER, "")), len(prompt or "")) > limits.text:
        raise BadRequest(422, f"the text is longer than {limits.text:,} characters")


def _check_own(task: Task, prompt: str | None, images: int) -> None:
    if images > 1:
        raise BadRequest(422, f"messages: the question of {task.name} is about one image. Fix: send one, or a text")
    if task.needs_text and not (prompt and prompt.strip()):
        raise BadRequest(422, f"prompt: the task {task.name} needs the text the image was made from")


def _check_mode(task: Task, answers: int, mode: str) -> None:
    if mode == "direct" and (task.scale is None or answers > 1):
        raise BadRequest(422, "this server answers without reasoning, with one number. Fix: ask for n=1 and a score")


def decoded_url(url: str, number: int) -> File:
    """Decode a data URL. No other URL is followed, and no path is read.

    Raises:
        BadRequest: the URL is not a data URL.
    """
    if not is_data_url(url):
        raise BadRequest(422, f"image {number}: not a data URL (data:image/png;base64,...); other URLs are not read")
    try:
        return File(f"image {number}", decode_base64(url))
    except BadBase64 as error:
        raise BadRequest(422, f"image {number}: not base64: {error}") from None


def _sampling(question: ChatQuestion, limits: Limits, max_tokens: int) -> Sampling:
    limits_given = {one for one in (question.max_completion_tokens, question.max_tokens) if one is not None}
    if len(limits_given) > 1:
        raise BadRequest(422, "max_tokens: it differs from max_completion_tokens. Fix: send only one of them")
    asked = min(limits_given, default=max_tokens)
    if question.n > limits.samples:
        raise BadRequest(422, f"n: at most {limits.samples}")
    if asked > max_tokens:
        raise BadRequest(422, f"max_tokens: at most {max_tokens:,} here")
    temperature = question.temperature
    if temperature is None:
        temperature = 1.0 if question.n > 1 else 0.0
    if question.n > 1 and temperature == 0:
        raise BadRequest(422, "temperature: several answers at temperature 0 would all be the same")
    return Sampling(question.n, temperature, question.top_p, asked)
