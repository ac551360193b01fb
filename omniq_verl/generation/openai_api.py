"""An engine for any endpoint with OpenAI's chat API: `vllm serve`, SGLang, a hosted model."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from omniq_verl.data.images import data_url
from omniq_verl.generation.addresses import checked_address, checked_key, is_loopback, proxy_hint
from omniq_verl.generation.request import DONE, ERROR, LENGTH, Answer, Request, Sampling
from omniq_verl.tasks import chat_turns

_EXAMPLE = "http://HOST:PORT/v1"


class Endpoint:
    """An endpoint and the name of a model there.

    Requests that it rejects (HTTP 400, 413, 422: too long, unknown image format) get answers that ended in "error".
    Everything else that still fails after ``retries`` (endpoint down, wrong key) is a RuntimeError, and the job can be
    restarted. An endpoint on this machine is called directly, whatever ``http_proxy`` says.

    Args:
        model: the model's name at the endpoint.
        base_url: e.g. ``http://localhost:8000/v1``.
        at_once: number of concurrent requests.
        retries: retries per request, with growing pauses.

    Raises:
        ValueError: no ``base_url``, one that is no address, or a key that cannot be sent.
    """

    def __init__(self, model: str, base_url: str | None, at_once: int = 32, retries: int = 5):
        if not base_url:
            raise ValueError(f"an endpoint needs its address: base_url={_EXAMPLE}")
        from openai import DefaultHttpxClient, OpenAI

        self._url = checked_address(base_url, _EXAMPLE)
        key = checked_key(os.environ.get("OPENAI_API_KEY", ""), "OPENAI_API_KEY") or "none"  # local servers take any
        http = DefaultHttpxClient(trust_env=False) if is_loopback(self._url) else None
        self._client = OpenAI(base_url=self._url, api_key=key, max_retries=retries, timeout=600, http_client=http)
        self._model, self._at_once, self._reached = model, at_once, False

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        """``sampling.n`` answers for each request, in order."""
        first = [] if self._reached else [self._answer(requests[0], sampling)]  # a single one, to detect a wrong key
        self._reached = True
        with ThreadPoolExecutor(self._at_once) as pool:
            return first + list(pool.map(lambda request: self._answer(request, sampling), requests[len(first) :]))

    def _answer(self, request: Request, sampling: Sampling) -> list[Answer]:
        from openai import APIConnectionError, APIStatusError

        answers: list[Answer] = []
        try:
            messages = as_chat(request)
        except ValueError as error:  # if raised, all others of the batch would be asked, and paid for, again
            return [Answer(str(error), ERROR)] * sampling.n
        try:
            while len(answers) < sampling.n:  # some endpoints return one, whatever the request says
                answers += self._some(request, messages, sampling, len(answers))
        except ValueError as error:  # no JSON; of a ValueError, callers would think that this request is to blame
            raise RuntimeError(self._no_chat(str(error))) from error
        except APIConnectionError as error:
            why = error.__cause__ or error
            raise RuntimeError(f"{self._url} cannot be reached ({why}){proxy_hint(self._url)}") from error
        except APIStatusError as error:
            if error.status_code not in (400, 413, 422):
                raise RuntimeError(f"{self._url}: {error.message}. Fix: {self._fix(error.status_code)}") from error
            answers += [Answer(f"HTTP {error.status_code}: {error.message}", ERROR)] * (sampling.n - len(answers))
        return answers[: sampling.n]

    def _some(self, request: Request, messages: list[Any], sampling: Sampling, have: int) -> list[Answer]:
        found: Any = self._client.chat.completions.create(
            model=self._model,
            messages=messages,
            n=sampling.n - have,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=request.seed + have if sampling.temperature > 0 else None,
        )
        try:
            return _read(found) or [Answer("the endpoint gave no answer", ERROR)] * (sampling.n - have)
        except (AttributeError, TypeError):  # the client does not check what it gets
            raise RuntimeError(self._no_chat(f"{found!r:.80}")) from None

    def _no_chat(self, what: str) -> str:
        return f"{self._url} does not answer as OpenAI's chat API does ({what}). Fix: correct the address, {_EXAMPLE}"

    def _fix(self, status: int) -> str:
        if status in (401, 403):
            return "set OPENAI_API_KEY to a key of this endpoint"
        if status in (404, 405):
            return f"correct the address, {_EXAMPLE}, or the name of the model, {self._model}"
        return "see the endpoint's own log"


def _read(found: Any) -> list[Answer]:
    """The answers in a response; none without choices."""
    choices = found.choices or []
    # Endpoints report the total number of tokens of a request's answers.
    tokens = (found.usage.completion_tokens or 0) // len(choices) if found.usage and choices else 0
    return [
        Answer(_text_of(choice.message), LENGTH if choice.finish_reason == "length" else DONE, tokens)
        for choice in choices
    ]


def _text_of(message: Any) -> str:
    """What the model wrote, in one text.

    A server that separates the reasoning (``vllm serve --reasoning-parser``) sends it in a field of its own, without
    its tags, and some servers send a list of parts.
    """
    content = message.content or ""
    if not isinstance(content, str):
        content = "".join(part.get("text") or "" for part in content)
    thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    if not thought:
        return content
    return f"<think>{thought}</think>{content}" if content else f"<think>{thought}"  # it was cut off while thinking


def as_chat(request: Request) -> list[dict[str, Any]]:
    """A request's messages with its images as data URLs."""
    images = iter(request.images)
    return [
        {"role": turn["role"], "content": [_part(part, images) for part in turn["content"]]}
        for turn in chat_turns(request.messages)
    ]


def _part(part: dict[str, str], images: Any) -> dict[str, Any]:
    if part["type"] == "text":
        return part
    data = next(images, None)
    if data is None:
        raise ValueError("the question has more placeholders than images")
    return {"type": "image_url", "image_url": {"url": data_url(data)}}
