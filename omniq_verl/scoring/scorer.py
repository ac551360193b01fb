"""``Scorer``: images in, score, level and reasoning out."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omniq_verl.data.images import BadImage
from omniq_verl.generation.engines import open_engine
from omniq_verl.generation.request import ERROR, Answer, Engine, Request, Sampling, answer_each, seed_of
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.rewards import Status, parse_response
from omniq_verl.rewards.degradation import NOT_NAMED, canonical_class, canonical_level, said_class
from omniq_verl.rewards.parsing import Parsed
from omniq_verl.scoring.inputs import all_or_one, load_source, name_of, prompts_for
from omniq_verl.tasks import IMAGE_TASKS, Scale, Task, task_on

BAD_IMAGE = "bad_image"
UNNAMED = "no_class"
"""The status of an object that names no distortion."""


@dataclass(frozen=True)
class Score:
    """What a model says of one image.

    ``status`` is "ok"; the parser's reason to refuse all answers (``omniq_verl.rewards.Status``); "no_class" (an object
    that names no distortion); "bad_image" or "error" (the engine refused the question), both with ``why``. Nothing but
    "ok" has a score.
    """

    image: str
    """Its path or address, or "image 3"."""
    task: str
    status: str
    score: float | None = None
    """On the task's scale; of several answers the mean of those that could be parsed."""
    level: str | None = None
    """Of five, by the scale's equal parts."""
    distortion: str | None = None
    """Of the degradation task; None with status "ok": there is none. Of several answers the most frequent."""
    severity: str | None = None
    reasoning: str | None = None
    """Of the first answer that could be parsed, else of the first."""
    answer: str = ""
    """The same answer's whole text."""
    spread: float | None = None
    """Standard deviation (population) of the parsed answers; None of a single one."""
    parsed: int = 0
    answers: int = 0
    why: str | None = None

    @property
    def ok(self) -> bool:
        return self.status == "ok"


class Scorer:
    """A reward model, ready for images.

    An image gets the same question wherever it stands, the first wording of its task, and its sampled answers a seed
    made from its own bytes: what it is scored beside changes nothing but, at times, the last bits of a sum.

    Args:
        model: Hugging Face folder or name, or an ``EngineSpec`` with all settings of an engine.
        engine: ``vllm``, ``hf``, ``openai`` or ``package.module:function``.
        max_tokens: longest answer.
        seed: of sampled answers.
        batch: images the engine is given at a time; the next are read meanwhile.
        allow_urls: fetch images by http and https.
        settings: others of ``EngineSpec``: ``base_url``, ``max_model_len``, ``dtype``, ``memory``, ``devices``,
            ``allow_pickle``, ``trust_remote_code``.

    Raises:
        ValueError: no such engine, or a model that is not safe to open.
    """

    def __init__(
        self,
        model: str | Path | EngineSpec,
        engine: str = "vllm",
        max_tokens: int = 1024,
        seed: int = 0,
        batch: int = 256,
        allow_urls: bool = False,
        **settings: Any,
    ):
        self._engine: Engine = open_engine(
            model if isinstance(model, EngineSpec) else EngineSpec(str(model), engine, **settings)
        )
        self._max_tokens, self._seed, self._batch, self._allow_urls = max_tokens, seed, batch, allow_urls

    def score(
        self,
        images: Any,
        task: str | Sequence[str] = "technical",
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        scale: Scale | None = None,
    ) -> Any:
        """Scores of images, in their order.

        Args:
            images: paths, bytes of files, PIL images, arrays ``[H, W, 3]`` of uint8, or a single one of these. What is
                no image, or refused by the image rules of training, gets the status "bad_image".
            task: ``technical``, ``aesthetic``, ``alignment`` or ``degradation``; several are asked of an image
                together, so that it is read and encoded once.
            prompt: the text the images were made from, for ``alignment``: one for all, or one each.
            samples: answers an image; one is greedy.
            temperature: of several.
            scale: to ask for scores on another than the task's own (1 to 5).

        Returns:
            A ``Score`` for each image; of several tasks a dict of them by task; of a single image, its own.

        Raises:
            ValueError: no such task, ``alignment`` without a prompt, prompts for another number of images, or samples
                below one.
        """
        return all_or_one(images, lambda all_: self.batches(all_, task, prompt, samples, temperature, scale))

    def batches(
        self,
        images: Sequence[Any],
        task: str | Sequence[str] = "technical",
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        scale: Scale | None = None,
    ) -> Iterator[list[Any]]:
        """As ``score``, a list at a time, as soon as each batch is done."""
        tasks = asked_tasks(task, scale)
        prompts = prompts_for(prompt, len(images))
        for asked in tasks:
            asked.question(None, prompts[0] if prompts else "")  # before anything is loaded: the task needs a prompt
        sampling = Sampling(samples, temperature if samples > 1 else 0.0, max_tokens=self._max_tokens)
        for first, loaded in self._loaded(images):
            names = [
                name_of(source, first + number) for number, source in enumerate(images[first : first + len(loaded)])
            ]
            scores = self._score(names, loaded, tasks, prompts[first:], sampling)
            yield [by_task[task] if isinstance(task, str) else by_task for by_task in scores]

    def _loaded(self, images: Sequence[Any]) -> Iterator[tuple[int, list[bytes | BadImage]]]:
        """Batches of images; the next is read while this one is scored."""
        with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
            ahead: list[Future] = []
            for first in range(0, len(images), self._batch):
                now = ahead or self._start(pool, images, first)
                ahead = self._start(pool, images, first + self._batch)
                yield first, [future.result() for future in now]

    def _start(self, pool: ThreadPoolExecutor, images: Sequence[Any], first: int) -> list[Future]:
        return [pool.submit(self._load, source) for source in images[first : first + self._batch]]

    def _load(self, source: Any) -> bytes | BadImage:
        try:
            return load_source(source, self._allow_urls)
        except BadImage as error:
            return error

    def _score(
        self,
        names: Sequence[str],
        loaded: Sequence[bytes | BadImage],
        tasks: Sequence[Task],
        prompts: Sequence[str | None],
        sampling: Sampling,
    ) -> list[dict[str, Score]]:
        requests = [
            score_request(f"{number}/{task.name}", data, task, prompt, self._seed)
            for number, (data, prompt) in enumerate(zip(loaded, prompts, strict=False))
            if isinstance(data, bytes)
            for task in tasks
        ]
        answered = answer_each(self._engine, requests, sampling) if requests else []
        answers = {request.key: found for request, found in zip(requests, answered, strict=True)}
        return [
            {
                task.name: Score(name, task.name, BAD_IMAGE, why=str(data))
                if isinstance(data, BadImage)
                else summarise(name, task, answers[f"{number}/{task.name}"])
                for task in tasks
            }
            for number, (name, data) in enumerate(zip(names, loaded, strict=True))
        ]


def score_request(key: str, data: bytes, task: Task, prompt: str | None, seed: int) -> Request:
    """What a model is asked about one image: the first wording of the task, and a seed made from the image's bytes."""
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    text = prompt if task.needs_text else None
    return Request(key, task.messages(None, text), (data,), seed_of(f"{task.name}/{digest}", seed))


def asked_tasks(names: str | Sequence[str], scale: Scale | None = None) -> list[Task]:
    """The tasks of these names, on another scale than their own where one is given.

    Raises:
        ValueError: there is no such task.
    """
    names = [names] if isinstance(names, str) else list(names)
    if unknown := [name for name in names if name not in IMAGE_TASKS]:
        raise ValueError(f"unknown task {unknown[0]!r} of one image; known: {', '.join(IMAGE_TASKS)}")
    return [task_on(name, scale if IMAGE_TASKS[name].scale else None) for name in names]


def summarise(name: str, task: Task, answers: Sequence[Answer]) -> Score:
    """The score of one image from its answers."""
    if all(answer.ended == ERROR for answer in answers):
        return Score(name, task.name, ERROR, answers=len(answers), why=answers[0].text)
    parsed = [parse_response("" if one.ended == ERROR else one.text, task.answer_format, task.scale) for one in answers]
    statuses = [_status(one, task) for one in parsed]
    right = [number for number, status in enumerate(statuses) if status == Status.OK.value]
    first = right[0] if right else 0
    return Score(
        image=name,
        task=task.name,
        status=statuses[first],
        reasoning=parsed[first].reasoning,
        answer=answers[first].text,
        parsed=len(right),
        answers=len(answers),
        **(_said([parsed[number] for number in right], task) if right else {}),
    )


def _status(parsed: Parsed, task: Task) -> str:
    """The parser's, or UNNAMED: in training such an answer is one of a wrong class."""
    named = parsed.fields is None or task.scale is not None or said_class(parsed.fields) != NOT_NAMED
    return parsed.status.value if named else UNNAMED


def _said(parsed: Sequence[Parsed], task: Task) -> Mapping[str, Any]:
    if task.scale is None:
        said = Counter(
            (canonical_class(said_class(one.fields)), canonical_level(one.fields.get("severity"))) for one in parsed
        )
        distortion, severity = said.most_common(1)[0][0]
        return {"distortion": distortion, "severity": severity}
    scores = [one.score for one in parsed]
    mean = float(np.mean(scores))
    return {
        "score": mean,
        "level": task.scale.level(min(max(mean, task.scale.low), task.scale.high)),  # a mean may round to outside
        "spread": float(np.std(scores)) if len(scores) > 1 else None,
    }
