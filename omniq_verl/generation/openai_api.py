"""An engine for any endpoint with OpenAI's chat API: `vllm serve`, SGLang, a hosted model."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from omniq_verl.data.images import data_url
from omniq_verl.generation.request import DONE, ERROR, LENGTH, Answer, Request, Sampling
from omniq_verl.tasks import chat_turns


class Endpoint:
    """An endpoint and the name of a model there.

    Requests that it rejects (HTTP 400, 413, 422: too long, unknown image format) get answers that ended in "error".
    Everything else that still fails after ``retries`` (endpoint down, wrong key) raises, and the job can be restarted.

    Args:
        model: the model's name at the endpoint.
        base_url: e.g. ``http://localhost:8000/v1``.
        at_once: number of concurrent requests.
        retries: retries per request, with growing pauses.

    Raises:
        ValueError: no ``base_url``.
    """

    def __init__(self, model: str, base_url: str | None, at_once: int = 32, retries: int = 5):
        if not base_url:
            raise ValueError("an endpoint needs its address: base_url=http://HOST:PORT/v1")
        from openai import OpenAI

        key = os.environ.get("OPENAI_API_KEY", "none")  # local servers take any
        self._client = OpenAI(base_url=base_url, api_key=key, max_retries=retries, timeout=600)
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
        except APIConnectionError as error:
            raise RuntimeError(f"{self._client.base_url} cannot be reached ({error.__cause__ or error})") from error
        except APIStatusError as error:
            if error.status_code not in (400, 413, 422):
                raise
            answers += [Answer(f"HTTP {error.status_code}: {error.message}", ERROR)] * (sampling.n - len(answers))
        return answers[: sampling.n]

    def _some(self, request: Request, messages: list[Any], sampling: Sampling, have: int) -> list[Answer]:
        found = self._client.chat.completions.create(
            model=self._model,
            messages=messages,
            n=sampling.n - have,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=request.seed + have if sampling.temperature > 0 else None,
        )
        if not found.choices:
            return [Answer("the endpoint gave no answer", ERROR)] * (sampling.n - have)
        # Endpoints report the total number of tokens of a request's answers.
        tokens = found.usage.completion_tokens // len(found.choices) if found.usage else 0
        return [
            Answer(choice.message.content or "", LENGTH if choice.finish_reason == "length" else DONE, tokens)
            for choice in found.choices
        ]


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
