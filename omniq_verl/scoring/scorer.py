"""``Scorer``: images in, score, level and reasoning out."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np

from omniq_verl.data.images import BadImage
from omniq_verl.generation.engines import open_engine
from omniq_verl.generation.request import ERROR, Answer, Answered, Engine, Request, Sampling, seed_of
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.streaming import stream_answers
from omniq_verl.rewards import Status, parse_response
from omniq_verl.rewards.degradation import NOT_NAMED, canonical_class, canonical_level, said_class
from omniq_verl.rewards.parsing import Parsed
from omniq_verl.scoring.image_inputs import (
    Images,
    OneImage,
    Tasks,
    all_or_one,
    digest_of,
    listed,
    load_source,
    name_of,
    prompts_for,
)
from omniq_verl.tasks import ForbiddenText, Scale, Task, image_task, scale_of, task_on

BAD_IMAGE = "bad_image"
UNNAMED = "no_class"
"""Status of a JSON answer that names no distortion."""


@dataclass(frozen=True)
class Score:
    """The result of one task for one image.

    ``status`` is "ok", the parser's reason to reject all answers (``omniq_verl.rewards.Status``), "no_class" (a JSON
    answer that names no distortion), "bad_image", or "error" (the engine rejected the question). The last two come with
    ``error``. Only "ok" has a score.
    """

    image: str
    """The image's path or URL as ``omniq_verl.data.names`` writes it, or "image 3"."""
    task: str
    status: str
    score: float | None = None
    """Score on the task's scale; with several answers, the mean of those that could be parsed."""
    level: str | None = None
    """One of five levels, which divide the scale into equal parts."""
    distortion: str | None = None
    """Result of the degradation task; None with status "ok" means no distortion. Most frequent of several answers."""
    severity: str | None = None
    reasoning: str | None = None
    """Reasoning of the first answer that could be parsed, else of the first answer."""
    answer: str = ""
    """Whole text of the same answer."""
    std: float | None = None
    """Population standard deviation of the parsed answers; None for a single one."""
    parsed: int = 0
    answers: int = 0
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.status == "ok"


class Scorer:
    """A reward model, ready to score images.

    An image always gets the same question (the first wording of its task), and the seed of its sampled answers is
    derived from its pixels. Scores therefore do not depend on the other images of a batch, except that the last bits of
    floating-point sums may differ.

    Args:
        model: Hugging Face folder or name, or an ``EngineSpec`` with all settings of an engine.
        engine: ``vllm``, ``hf``, ``openai`` or ``package.module:function``.
        max_tokens: maximum length of an answer.
        seed: seed of sampled answers.
        batch: images whose scores ``batches`` yields together; also the batch size of engines other than vLLM.
        allow_urls: fetch images over http and https.
        settings: further arguments of ``EngineSpec``: ``base_url``, ``max_model_len``, ``dtype``, ``memory``,
            ``devices``, ``allow_pickle``, ``trust_remote_code``.

    Raises:
        ValueError: unknown engine, or a model that is not safe to load.
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

    @property
    def engine(self) -> Engine:
        """The engine that answers. For vLLM, ``engine.spent`` shows where the time is spent (``feeding.Spent``)."""
        return self._engine

    @overload
    def score(
        self,
        images: OneImage,
        task: str = "technical",
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        scale: Scale | str | None = None,
    ) -> Score: ...

    @overload
    def score(
        self,
        images: OneImage,
        task: Tasks,
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        scale: Scale | str | None = None,
    ) -> dict[str, Score]: ...

    @overload
    def score(
        self,
        images: Images,
        task: str = "technical",
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        scale: Scale | str | None = None,
    ) -> list[Score]: ...

    @overload
    def score(
        self,
        images: Images,
        task: Tasks,
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        scale: Scale | str | None = None,
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
        scale: Scale | str | None = None,
    ) -> Any:
        """Score images, in order.

        Args:
            images: paths, data URLs, file contents as bytes, PIL images, arrays or tensors (shapes and values: see
                ``omniq_verl.data.arrays``), or a single one of these. Inputs that are not images, or that training
                would reject, get the status "bad_image".
            task: ``technical``, ``aesthetic``, ``alignment`` or ``degradation``; several are asked together, so that
                each image is read and encoded only once.
            prompt: the text the images were made from, for ``alignment``: one for all, or one per image.
            samples: answers per image; 1 decodes greedily.
            temperature: sampling temperature if ``samples`` > 1.
            scale: ask for scores on another scale than the task's own (1 to 5); an object or a name such as "0-5".

        Returns:
            A ``Score`` for each image; for several tasks a dict by task; for a single image only its own.

        Raises:
            ValueError: unknown task, ``alignment`` without a prompt, a number of prompts that differs from the number
                of images, ``samples`` below 1, or a common prompt with control tokens (``tasks.outside_text``). With
                one prompt per image, control tokens only fail their own image, whose status is "error".
            TypeError: ``images`` is neither one image nor a list of images, for example a whole table.
        """
        return all_or_one(images, lambda all_: self.batches(all_, task, prompt, samples, temperature, scale))

    def batches(
        self,
        images: Iterable[Any],
        task: str | Sequence[str] = "technical",
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        scale: Scale | str | None = None,
    ) -> Iterator[list[Any]]:
        """Like ``score``, but yields a list per batch, as soon as each batch is done."""
        tasks, images = asked_tasks(task, scale), listed(images)
        prompts = prompts_for(prompt, len(images))
        for asked in tasks:
            # Fail before anything is loaded if a prompt is missing or a common prompt is invalid.
            asked.question(None, prompts[0] if isinstance(prompt, str) or (prompts and prompts[0] is None) else "")
        sampling = Sampling(samples, temperature if samples > 1 else 0.0, max_tokens=self._max_tokens)
        jobs = (
            partial(self._requests, image, tasks, text, samples > 1)
            for image, text in zip(images, prompts, strict=True)
        )
        outcomes = stream_answers(self._engine, jobs, sampling, self._batch)
        named = (name_of(image, number) for number, image in enumerate(images))
        scores = (_scores(name, tasks, outcome) for name, outcome in zip(named, outcomes, strict=True))
        while batch := list(islice(scores, self._batch)):
            yield [by_task[task] if isinstance(task, str) else by_task for by_task in batch]

    def _requests(self, image: Any, tasks: Sequence[Task], prompt: str | None, sampled: bool) -> list[Request]:
        """Build the requests for one image. Called in a thread.

        Raises:
            BadImage: the image is missing or rejected.
        """
        data = load_source(image, self._allow_urls)
        digest = digest_of(data, sampled)
        return [score_request(task.name, data, digest, task, prompt, self._seed) for task in tasks]


def _scores(name: str, tasks: Sequence[Task], outcome: Answered) -> dict[str, Score]:
    """The scores of an image by task."""
    if isinstance(outcome, BadImage):
        return {task.name: Score(name, task.name, BAD_IMAGE, error=str(outcome)) for task in tasks}
    if isinstance(outcome, ForbiddenText):
        return {task.name: Score(name, task.name, ERROR, error=str(outcome)) for task in tasks}
    if isinstance(outcome, ValueError):
        raise outcome
    return {task.name: summarise(name, task, answers) for task, answers in zip(tasks, outcome, strict=True)}


def score_request(key: str, data: bytes, digest: str, task: Task, prompt: str | None, seed: int) -> Request:
    """The request for one image: the first wording of the task, and a seed derived from the image's digest."""
    text = prompt if task.needs_text else None
    return Request(key, task.messages(None, text), (data,), seed_of(f"{task.name}/{digest}", seed))


def asked_tasks(names: str | Sequence[str], scale: Scale | str | None = None) -> list[Task]:
    """The tasks with these names, moved to ``scale`` if one is given.

    Raises:
        ValueError: unknown task or scale.
    """
    scale = scale_of(scale)
    names = [names] if isinstance(names, str) else list(names)
    return [task_on(name, scale if image_task(name).scale else None) for name in names]


def summarise(name: str, task: Task, answers: Sequence[Answer]) -> Score:
    """Combine one image's answers into its score."""
    if all(answer.finish_reason == ERROR for answer in answers):
        return Score(name, task.name, ERROR, answers=len(answers), error=answers[0].text)
    parsed = [
        parse_response("" if one.finish_reason == ERROR else one.text, task.answer_format, task.scale)
        for one in answers
    ]
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
        **(_combined([parsed[number] for number in right], task) if right else {}),
    )


def _status(parsed: Parsed, task: Task) -> str:
    """The parser's status, or UNNAMED: in training such an answer counts as a wrong class."""
    named = parsed.fields is None or task.scale is not None or said_class(parsed.fields) != NOT_NAMED
    return parsed.status.value if named else UNNAMED


def _combined(parsed: Sequence[Parsed], task: Task) -> Mapping[str, Any]:
    if task.scale is None:
        counts = Counter(
            (canonical_class(said_class(one.fields)), canonical_level(one.fields.get("severity"))) for one in parsed
        )
        distortion, severity = counts.most_common(1)[0][0]
        return {"distortion": distortion, "severity": severity}
    scores = [one.score for one in parsed]
    mean = float(np.mean(scores))
    return {
        "score": mean,
        "level": task.scale.level(
            min(max(mean, task.scale.low), task.scale.high)
        ),  # rounding may move a mean off the scale
        "std": float(np.std(scores)) if len(scores) > 1 else None,
    }
