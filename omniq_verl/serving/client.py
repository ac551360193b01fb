"""The server from Python: the calls of ``Scorer`` and ``Comparer``, over HTTP."""

import logging
import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, overload

import requests

from omniq_verl.data.images import BadImage
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

_COMPARED = frozenset(Comparison.__dataclass_fields__)  # a newer server may say more
_CAUSE = re.compile(r"\[Errno -?\d+\] ([\w ,.-]+)")
_SAY_EVERY = 60.0
"""Seconds between two warnings of a server that does not answer."""
logger = logging.getLogger(__name__)
_AGAIN = (429, 500, 502, 503, 504)
"""Answers of HTTP after which the same question is asked again; Ray Serve says 500 of a replica that was killed."""


class ServerError(RuntimeError):
    """The server cannot be reached, or rejects a question."""


class Client:
    """A server of ``omniq serve``.

    Args:
        url: e.g. ``http://localhost:8000``.
        key: API key, where it asks for one.
        at_once: requests under way.
        patience: seconds for which a question is asked again, with growing pauses, where the server is full, starts
            anew, or cannot be reached. An answer depends on the image and the question alone, so that asking again
            changes nothing.
        timeout: seconds for one request.
        first_patience: seconds that stand for ``patience`` until the server has answered for the first time: an address
            where nobody has ever answered is most likely wrong.
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
        self._url, self._patience, self._timeout = url.rstrip("/"), patience, timeout
        self._first_patience, self._reached = min(first_patience, patience), False
        self._telling = Lock()
        self._said: float | None = None  # when the last warning was given
        self._pool = ThreadPoolExecutor(at_once)
        self._session = requests.Session()
        self._session.mount("http", requests.adapters.HTTPAdapter(pool_maxsize=at_once))
        if key:
            self._session.headers["Authorization"] = f"Bearer {key}"

    @overload
    def score(
        self,
        images: OneImage,
        task: str = "technical",
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        model: str | None = None,
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
    ) -> list[dict[str, Score]]: ...

    @overload
    def score(self, images: Any, task: str | Sequence[str] = "technical", **settings: Any) -> Any: ...

    def score(
        self,
        images: Any,
        task: str | Sequence[str] = "technical",
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        model: str | None = None,
    ) -> Any:
        """Scores of images, in their order, as ``Scorer.score`` gives them.

        Args:
            images: as ``Scorer.score`` takes them; sent without loss.
            task: one, or several that are asked together.
            prompt: the text the images were made from: one for all, or one each.
            samples: answers an image.
            temperature: of several.
            model: ``reasoning`` or ``rali``, where both are served.

        Raises:
            ValueError: prompts for another number of images.
            TypeError: ``images`` is neither one image nor a list of images.
            ServerError: the server rejects, or does not answer within ``patience``.
        """
        return all_or_one(images, lambda all_: self.batches(all_, task, prompt, samples, temperature, model))

    def batches(
        self,
        images: Iterable[Any],
        task: str | Sequence[str] = "technical",
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        model: str | None = None,
    ) -> Iterator[list[Any]]:
        """As ``score``, one at a time, as soon as each is done and those before it are."""
        images = listed(images)
        prompts = prompts_for(prompt, len(images))
        fields = {"samples": samples, "temperature": temperature, "reasoning": "true"}
        fields |= {"model": model} if model else {}
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
        found = self._post("/v1/score", fields, [("images", ("image", data))])
        return {task: Score(name, task, **_texts(said)) for task, said in found["results"][0]["scores"].items()}

    def compare(
        self, pairs: Iterable[tuple[Any, Any]], references: Iterable[Any] | None = None, samples: int = 1
    ) -> list[Comparison]:
        """The better image of each pair, as ``Comparer.compare`` says it.

        Raises:
            ValueError: references for another number of pairs.
            TypeError: the pairs are no list, or one of them is not two images.
            ServerError: the server rejects, or does not answer within ``patience``.
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
        (said,) = self._post("/v1/compare", {"samples": samples, "reasoning": "true"}, files)["results"]
        said |= {"winner": said["winner"] and said["winner"].upper(), "reasoning": tuple(said["reasoning"] or ())}
        return Comparison(a, b, **{name: value for name, value in said.items() if name in _COMPARED})

    def _post(self, path: str, fields: dict[str, Any], files: list[Any]) -> dict[str, Any]:
        start, pause = time.monotonic(), 0.1
        while True:
            why, wait = self._try(path, fields, files)
            if isinstance(why, dict):
                return why
            pause = min(2 * pause, 10.0)
            # At random, so that those who were rejected together do not come back together.
            wait = max(wait, pause) * random.uniform(0.5, 1.5)
            patience = self._patience if self._reached else self._first_patience
            if time.monotonic() + wait > start + patience:
                fix = "" if self._reached else ". Fix: start the server (omniq serve), or correct the address"
                raise ServerError(f"{self._url}{path}: no answer in {patience:g} s (last: {why}){fix}")
            self._tell(why, patience)
            time.sleep(wait)

    def _tell(self, why: str, patience: float) -> None:
        """Say once a minute, however many questions wait, that the server is silent."""
        with self._telling:
            due = self._said is None or time.monotonic() - self._said > _SAY_EVERY
            if due:
                self._said = time.monotonic()
        if due:
            logger.warning("%s: no answer yet (%.200s); asked again for up to %g s", self._url, why, patience)

    def _try(self, path: str, fields: dict[str, Any], files: list[Any]) -> tuple[dict[str, Any] | str, float]:
        """The answer; or why there is none yet, and how many seconds to wait at least."""
        try:
            got = self._session.post(self._url + path, data=fields, files=files, timeout=self._timeout)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            return _plain(error), 0.0
        self._reached = True
        if got.ok:
            return got.json(), 0.0
        if got.status_code in _AGAIN:
            after = got.headers.get("Retry-After", "0")
            return f"HTTP {got.status_code}", float(after) if after.isdigit() else 0.0
        raise ServerError(f"{self._url}{path}: HTTP {got.status_code}: {got.text[:1000]}")


def _plain(error: Exception) -> str:
    """The cause of an error of ``requests``, without the objects that it came through."""
    text = str(error)
    cause = _CAUSE.search(text)
    return cause[1] if cause else text


def _texts(said: dict[str, Any]) -> dict[str, Any]:
    return {**said, "answer": said.get("answer") or ""}
