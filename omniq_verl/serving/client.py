"""Python client of the server, with the calls of ``Scorer`` and ``Comparer``."""

import logging
import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, overload
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from omniq_verl.data.images import BadImage
from omniq_verl.generation.addresses import checked_address, checked_key, is_loopback, proxy_hint
from omniq_verl.generation.direct import check_mode
from omniq_verl.generation.request import ERROR
from omniq_verl.scoring.comparison import Comparison, load_shown, paired
from omniq_verl.scoring.image_inputs import (
    Images,
    OneImage,
    Tasks,
    all_or_one,
    listed,
    load_source,
    name_of,
    prompts_for,
)
from omniq_verl.scoring.scorer import BAD_IMAGE, Score
from omniq_verl.tasks import text_fault

_COMPARED = frozenset(Comparison.__dataclass_fields__)  # a newer server may send more fields
_SCORED = frozenset(Score.__dataclass_fields__)
_CAUSE = re.compile(r"\[Errno -?\d+\] ([\w ,.-]+)")
_WARN_EVERY = 60.0
"""Seconds between two warnings that the server does not answer."""
logger = logging.getLogger(__name__)
_AGAIN = (429, 500, 502, 503, 504)
"""HTTP statuses after which a request is retried. Ray Serve answers 500 when a replica was killed."""


_EXAMPLE = "http://HOST:PORT, without a path"


class ServerError(RuntimeError):
    """The server cannot be reached or has rejected a request."""


class _Bearer(AuthBase):
    """Sends the key. ``requests`` would replace a plain header with the host's entry in ``~/.netrc``."""

    def __init__(self, key: str):
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class Client:
    """Client of ``omniq serve``.

    A server on this machine is called directly, whatever ``http_proxy`` says.

    Args:
        url: e.g. ``http://localhost:8000``.
        key: API key, if the server requires one.
        at_once: maximum number of concurrent requests.
        patience: seconds for which a request is retried, with growing pauses, while the server is full, restarting or
            unreachable. Retrying is safe because an answer depends only on the image and the question.
        timeout: seconds for one request.
        first_patience: used instead of ``patience`` until the server has answered for the first time, because an
            address that has never answered is most likely wrong.

    Raises:
        ValueError: ``url`` is not an address, or ``key`` cannot be sent.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        at_once: int = 32,
        patience: float = 300.0,
        timeout: float = 300.0,
        first_patience: float = 15.0,
    ):
        self._url, self._patience, self._timeout = checked_address(url, _EXAMPLE), patience, timeout
        self._first_patience, self._reached = min(first_patience, patience), False
        self._warn_lock = Lock()
        self._warned: float | None = None  # when the last warning was given
        self._pool = ThreadPoolExecutor(at_once)
        self._session = requests.Session()
        self._session.mount("http", HTTPAdapter(pool_maxsize=at_once))
        # A request's own no_proxy replaces the environment's, so it is only set if there must be no proxy.
        self._proxies = {"no_proxy": urlsplit(self._url).hostname or ""} if is_loopback(self._url) else None
        if key:
            self._session.auth = _Bearer(checked_key(key, "the API key"))

    @overload
    def score(
        self,
        images: OneImage,
        task: str = "technical",
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        model: str | None = None,
        mode: str | None = None,
    ) -> Score: ...

    @overload
    def score(
        self,
        images: OneImage,
        task: Tasks,
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        model: str | None = None,
        mode: str | None = None,
    ) -> dict[str, Score]: ...

    @overload
    def score(
        self,
        images: Images,
        task: str = "technical",
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        model: str | None = None,
        mode: str | None = None,
    ) -> list[Score]: ...

    @overload
    def score(
        self,
        images: Images,
        task: Tasks,
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        model: str | None = None,
        mode: str | None = None,
    ) -> list[dict[str, Score]]: ...

    @overload
    def score(
        self,
        images: Any,
        task: str | Sequence[str] = "technical",
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        model: str | None = None,
    ) -> Any: ...

    def score(
        self,
        images: Any,
        task: str | Sequence[str] = "technical",
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        model: str | None = None,
        mode: str | None = None,
    ) -> Any:
        """Score images, in order, like ``Scorer.score``.

        Args:
            images: anything ``Scorer.score`` accepts; images are sent losslessly.
            task: one task, or several to ask about each image.
            prompt: the text the images were generated from: one for all, or one per image.
            samples: answers per image.
            temperature: sampling temperature if ``samples`` > 1.
            model: ``reasoning`` or ``rali``, if the server has both.
            mode: ``reason`` or ``direct``; None: the server's default.

        Raises:
            ValueError: the number of prompts differs from the number of images, or there is no such mode.
            TypeError: ``images`` is neither one image nor a list of images.
            ServerError: the server rejects the request or does not answer within ``patience``.
        """
        return all_or_one(images, lambda all_: self.batches(all_, task, prompt, samples, temperature, model, mode))

    def batches(
        self,
        images: Iterable[Any],
        task: str | Sequence[str] = "technical",
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        model: str | None = None,
        mode: str | None = None,
    ) -> Iterator[list[Any]]:
        """Like ``score``, but yields each image's result in order, as soon as it is available."""
        if mode is not None:
            check_mode(mode)
        images = listed(images)
        prompts = prompts_for(prompt, len(images))
        fields = {"samples": samples, "temperature": temperature, "reasoning": "true"}
        fields |= {name: value for name, value in (("model", model), ("mode", mode)) if value}
        tasks = [task] if isinstance(task, str) else list(task)

        def ask(number: int) -> dict[str, Score]:
            text = {} if prompts[number] is None else {"prompt": prompts[number]}
            name = name_of(images[number], number)
            return self._score(images[number], name, tasks, {**fields, **text, "task": tasks})

        for by_task in self._pool.map(ask, range(len(images))):
            yield [by_task[task] if isinstance(task, str) else by_task]

    def _score(self, source: Any, name: str, tasks: Sequence[str], fields: dict[str, Any]) -> dict[str, Score]:
        try:
            data = load_source(source)
        except BadImage as error:
            return {task: Score(name, task, BAD_IMAGE, error=str(error)) for task in tasks}
        if fault := text_fault(fields.get("prompt", "")):  # also finds text that cannot be encoded
            return {task: Score(name, task, ERROR, error=f"the prompt {fault}") for task in tasks}
        found = self._post("/v1/score", fields, [("images", ("image", data))])
        return {task: Score(name, task, **_texts(fields)) for task, fields in found["scores"].items()}

    def compare(
        self, pairs: Iterable[tuple[Any, Any]], references: Iterable[Any] | None = None, samples: int = 1
    ) -> list[Comparison]:
        """Pick the better image of each pair, like ``Comparer.compare``.

        Raises:
            ValueError: the number of references differs from the number of pairs.
            TypeError: ``pairs`` is not a list, or one of them is not two images.
            ServerError: the server rejects the request or does not answer within ``patience``.
        """
        pairs, shown = paired(pairs, references)
        return list(
            self._pool.map(
                lambda number: self._compare(number, pairs[number], shown[number], samples), range(len(pairs))
            )
        )

    def _compare(self, number: int, pair: tuple[Any, Any], reference: Any, samples: int) -> Comparison:
        a, b = (name_of(image, 2 * number + side) for side, image in enumerate(pair))
        try:
            shown = load_shown(*pair, reference, load_source)
        except BadImage as error:
            return Comparison(a, b, BAD_IMAGE, error=str(error))
        named = zip(("a", "b", "reference"), shown, strict=True)
        files = [(name, ("image", data)) for name, data in named if data is not None]
        answer = self._post("/v1/compare", {"samples": samples, "reasoning": "true"}, files)
        answer |= {
            "winner": answer["winner"] and answer["winner"].upper(),
            "reasoning": tuple(answer["reasoning"] or ()),
        }
        return Comparison(a, b, **{name: value for name, value in answer.items() if name in _COMPARED})

    def _post(self, path: str, fields: dict[str, Any], files: list[Any]) -> dict[str, Any]:
        """Return the result of the only image or pair of a request."""
        start, pause = time.monotonic(), 0.1
        while True:
            why, wait = self._try(path, fields, files)
            if isinstance(why, dict):
                return why
            pause = min(2 * pause, 10.0)
            # Random, so that clients rejected at the same time do not all retry at the same time.
            wait = max(wait, pause) * random.uniform(0.5, 1.5)
            patience = self._patience if self._reached else self._first_patience
            if time.monotonic() + wait > start + patience:
                fix = "" if self._reached else ". Fix: start the server (omniq serve), or correct the address"
                fix += proxy_hint(self._url)
                raise ServerError(f"{self._url}{path}: no answer in {patience:g} s (last: {why}){fix}")
            self._report_wait(why, patience)
            time.sleep(wait)

    def _report_wait(self, why: str, patience: float) -> None:
        """Warn at most once a minute that the server does not answer, however many requests wait."""
        with self._warn_lock:
            due = self._warned is None or time.monotonic() - self._warned > _WARN_EVERY
            if due:
                self._warned = time.monotonic()
        if due:
            logger.warning("%s: no answer yet (%.200s); retrying for up to %g s", self._url, why, patience)

    def _try(self, path: str, fields: dict[str, Any], files: list[Any]) -> tuple[dict[str, Any] | str, float]:
        """Return the answer, or the reason why there is none yet; and the minimum number of seconds to wait."""
        try:
            got = self._session.post(
                self._url + path, data=fields, files=files, timeout=self._timeout, proxies=self._proxies
            )
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            return _plain(error), 0.0
        except requests.RequestException as error:  # a retry would not help: endless redirects, ...
            raise ServerError(f"{self._url}{path}: {error}. Fix: correct the address, {_EXAMPLE}") from error
        self._reached = True
        if got.ok:
            return self._result(path, got), 0.0
        if got.status_code in _AGAIN:
            after = got.headers.get("Retry-After", "0")
            return f"HTTP {got.status_code}", float(after) if after.isdigit() else 0.0
        fix = f". Fix: correct the address, {_EXAMPLE}" if got.status_code in (404, 405) else ""
        raise ServerError(f"{self._url}{path}: HTTP {got.status_code}: {got.text[:1000]}{fix}")

    def _result(self, path: str, got: requests.Response) -> dict[str, Any]:
        try:
            (found,) = got.json()["results"]
        except (ValueError, KeyError, TypeError):
            kind = got.headers.get("Content-Type", "nothing")
            raise ServerError(
                f"{self._url}{path}: the answer is not that of omniq serve, but {kind}: {got.text[:60]!r}. Fix: correct"
                f" the address, {_EXAMPLE}{proxy_hint(self._url)}"
            ) from None
        return found


def _plain(error: Exception) -> str:
    """Return the cause of a ``requests`` error, without the reprs of the objects that wrap it."""
    text = str(error)
    cause = _CAUSE.search(text)
    return cause[1] if cause else text


def _texts(fields: dict[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in fields.items() if name in _SCORED}
    return {**known, "answer": fields.get("answer") or ""}
