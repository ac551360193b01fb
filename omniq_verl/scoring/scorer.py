"""``Scorer``: images in, score, level and reasoning out."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np

from omniq_verl.data.digits import without_rounding_errors
from omniq_verl.data.images import BadImage
from omniq_verl.families.family import Family, Reader, read_strictly
from omniq_verl.families.reading import without_cut_end
from omniq_verl.generation.direct import check_mode, check_reads_scores, score_texts
from omniq_verl.generation.expectation import ScoreTexts
from omniq_verl.generation.request import ERROR, Answer, Answered, Request, Sampling, seed_of
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.streaming import stream_answers
from omniq_verl.rewards import Status
from omniq_verl.rewards.degradation import NOT_NAMED, canonical_class, canonical_level, stated_class
from omniq_verl.rewards.parsing import Parsed
from omniq_verl.scoring.engine_owner import EngineOwner
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
_SPEC = {one.name for one in fields(EngineSpec)} - {"model", "kind"}


@dataclass(frozen=True)
class Score:
    """The result of one task for one image.

    ``status`` is "ok", the parser's reason for rejecting all answers (``omniq_verl.rewards.Status``), "no_class" (a
    JSON answer that names no distortion), "bad_image", or "error" (the engine rejected the question). With the last
    two, ``error`` gives the reason. Only "ok" has a score.
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
    """Result of the degradation task, the most frequent of several answers; None with status "ok": no distortion."""
    severity: str | None = None
    reasoning: str | None = None
    """Reasoning of the first answer that could be parsed, or of the first answer if none could."""
    answer: str = ""
    """The whole text of the same answer."""
    std: float | None = None
    """Standard deviation (population) of the parsed answers; None for a single answer. In mode ``direct``, the standard
    deviation of the distribution."""
    parsed: int = 0
    answers: int = 0
    error: str | None = None
    outside: float | None = None
    """In mode ``direct``: the probability that the model would write anything but a number on the scale."""

    @property
    def ok(self) -> bool:
        return self.status == "ok"


class Scorer(EngineOwner):
    """A reward model, ready to score images.

    ``close``, or the end of a ``with`` block, gives back the memory of its engine.

    An image always gets the same question (the first wording of its task), and the seed of its sampled answers is
    derived from its pixels. Scores therefore do not depend on the other images of a batch, except that the last bits of
    floating-point sums may differ.

    Args:
        model: Hugging Face folder or name, or an ``EngineSpec`` with all settings of an engine.
        engine: ``vllm``, ``hf``, ``openai`` or ``package.module:function``.
        max_tokens: maximum length of an answer.
        seed: seed of sampled answers.
        batch: images whose scores ``batches`` returns together; engines other than vLLM also get this many at a time.
        allow_urls: fetch images over http and https.
        mode: ``reason``, or ``direct``: no text is generated, and a score is the expected value over the numbers that
            the model could write after ``<answer>`` (``generation.expectation``); for the engines ``vllm`` and ``hf``.
        family: the model's family, if it is not one of this package; ``from_pretrained`` finds it.
        settings: further arguments of ``EngineSpec``: ``base_url``, ``max_model_len``, ``dtype``, ``memory``,
            ``devices``, ``allow_pickle``, ``trust_remote_code``.

    Raises:
        ValueError: there is no such engine or mode, or the model is not safe to open.
    """

    def __init__(
        self,
        model: str | Path | EngineSpec,
        engine: str = "vllm",
        max_tokens: int = 1024,
        seed: int = 0,
        batch: int = 256,
        allow_urls: bool = False,
        mode: str = "reason",
        family: Family | None = None,
        **settings: Any,
    ):
        check_mode(mode)
        if family is not None:
            family.check_mode(mode)
        self._family = family
        spec = model if isinstance(model, EngineSpec) else EngineSpec(str(model), engine, **settings)
        super().__init__(spec)
        self._direct = mode == "direct"
        if self._direct:
            check_reads_scores(self.engine, spec.kind)
        self._max_tokens, self._seed, self._batch, self._allow_urls = max_tokens, seed, batch, allow_urls

    @classmethod
    def from_pretrained(
        cls, model: str | Path, family: str | None = None, mode: str | None = None, **settings: Any
    ) -> "Scorer":
        """Open a released model of a known family, with its authors' question and parser.

        Args:
            model: folder, or name on the Hugging Face hub, e.g. "TianheWu/VisualQuality-R1-7B".
            family: its name (``families.find.FAMILIES``); None: taken from ``omniq.json``, card or name.
            mode: ``reason`` or ``direct``; None: the family's own.
            settings: further arguments of ``Scorer``.

        Raises:
            ValueError: the family is unknown, contradicts the model, or is not supported; also as for ``Scorer``.
        """
        from omniq_verl.families.find import as_family

        given = {name: settings.pop(name) for name in _SPEC & settings.keys()}
        spec, found = as_family(EngineSpec(str(model), settings.pop("engine", "vllm"), **given), family)
        return cls(spec, mode=mode or found.mode, family=found, **settings)

    @property
    def family(self) -> "Family | None":
        """The family whose wording and parser are used; None: this package's own."""
        return self._family

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
    def score(
        self,
        images: Any,
        task: str | Sequence[str] = "technical",
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        scale: Scale | str | None = None,
    ) -> Any: ...

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
            prompt: the text the images were generated from, for ``alignment``: one for all, or one per image.
            samples: answers per image; 1 decodes greedily.
            temperature: sampling temperature if ``samples`` > 1.
            scale: a scale other than the task's own (1 to 5); an object or a name such as "0-5".

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
        tasks, images = self._tasks(task, scale), listed(images)
        prompts = prompts_for(prompt, len(images))
        for asked in tasks:  # fail before anything is loaded if a prompt is missing or a common prompt is invalid
            check_texts(asked, prompts)
            asked.question(None, prompt if isinstance(prompt, str) else "")
            if self._direct:
                self._texts(asked)
        if self._direct and samples > 1:
            raise ValueError(f"{samples} samples in mode direct, which does not sample. Fix: leave out samples")
        sampling = Sampling(samples, temperature if samples > 1 else 0.0, max_tokens=self._max_tokens)
        jobs = (
            partial(self._requests, image, tasks, text, samples > 1)
            for image, text in zip(images, prompts, strict=True)
        )
        outcomes = stream_answers(self.engine, jobs, sampling, self._batch)
        named = (name_of(image, number) for number, image in enumerate(images))
        scores = (_scores(name, tasks, outcome, self._family) for name, outcome in zip(named, outcomes, strict=True))
        while batch := list(islice(scores, self._batch)):
            yield [by_task[task] if isinstance(task, str) else by_task for by_task in batch]

    def _requests(self, image: Any, tasks: Sequence[Task], prompt: str | None, sampled: bool) -> list[Request]:
        """Build the requests for one image. Runs in a thread.

        Raises:
            BadImage: the image is missing or rejected.
        """
        data = load_source(image, self._allow_urls)
        digest = digest_of(data, sampled)
        asked = [score_request(task.name, data, digest, task, prompt, self._seed) for task in tasks]
        if not self._direct:
            return asked
        return [replace(one, texts=self._texts(task)) for one, task in zip(asked, tasks, strict=True)]

    def _tasks(self, names: str | Sequence[str], scale: Scale | str | None) -> list[Task]:
        if self._family is None:
            return asked_tasks(names, scale)
        found = [self._family.task(name) for name in ([names] if isinstance(names, str) else names)]
        other = scale_of(scale)
        return [one if other is None or one.scale is None else replace(one, scale=other) for one in found]

    def _texts(self, task: Task) -> ScoreTexts:
        return score_texts(task) if self._family is None or task.scale is None else self._family.texts(task)


def _scores(name: str, tasks: Sequence[Task], outcome: Answered, family: Family | None) -> dict[str, Score]:
    """Return an image's scores by task."""
    if isinstance(outcome, BadImage):
        return {task.name: Score(name, task.name, BAD_IMAGE, error=str(outcome)) for task in tasks}
    if isinstance(outcome, ForbiddenText):
        return {task.name: Score(name, task.name, ERROR, error=str(outcome)) for task in tasks}
    if isinstance(outcome, ValueError):
        raise outcome
    read = read_strictly if family is None else family.read
    return {task.name: summarise(name, task, answers, read) for task, answers in zip(tasks, outcome, strict=True)}


def score_request(key: str, data: bytes, digest: str, task: Task, prompt: str | None, seed: int) -> Request:
    """Build the request for one image: the first wording of the task, and a seed derived from the image's digest."""
    text = prompt if task.needs_text else None
    return Request(key, task.messages(None, text), (data,), seed_of(f"{task.name}/{digest}", seed))


def check_texts(task: Task, prompts: Sequence[str | None]) -> None:
    """Check that each image has its text if the task needs one. A score without the text would be meaningless.

    Raises:
        ValueError: an image has no text, or only white space.
    """
    if not task.needs_text:
        return
    for number, text in enumerate(prompts):
        if text is None or not text.strip():
            what = "none was given" if text is None else f"that of image {number} is empty"
            raise ValueError(f"the task {task.name} needs the text an image was made from, but {what}")


def asked_tasks(names: str | Sequence[str], scale: Scale | str | None = None) -> list[Task]:
    """Return the tasks with these names, on ``scale`` if one is given.

    Raises:
        ValueError: a task or the scale is unknown.
    """
    scale = scale_of(scale)
    names = [names] if isinstance(names, str) else list(names)
    return [task_on(name, scale if image_task(name).scale else None) for name in names]


def summarise(name: str, task: Task, answers: Sequence[Answer], read: Reader = read_strictly) -> Score:
    """Combine the answers about one image into its score."""
    if all(answer.finish_reason == ERROR for answer in answers):
        return Score(name, task.name, ERROR, answers=len(answers), error=answers[0].text)
    texts = ("" if one.finish_reason == ERROR else without_cut_end(one.text, one.finish_reason) for one in answers)
    parsed = [read(text, task) for text in texts]
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
        outside=answers[first].outside,
        **(_stated([parsed[number] for number in right], task, answers[first].std) if right else {}),
    )


def _status(parsed: Parsed, task: Task) -> str:
    """Return the parser's status, or UNNAMED: in training, such an answer counts as a wrong class."""
    named = parsed.fields is None or task.scale is not None or stated_class(parsed.fields) != NOT_NAMED
    return parsed.status.value if named else UNNAMED


def _stated(parsed: Sequence[Parsed], task: Task, spread: float | None) -> Mapping[str, Any]:
    if task.scale is None:
        counts = Counter(
            (canonical_class(stated_class(one.fields)), canonical_level(one.fields.get("severity")))
            for one in parsed
            if one.fields is not None
        )
        distortion, severity = counts.most_common(1)[0][0]
        return {"distortion": distortion, "severity": severity}
    scores = [one.score for one in parsed if one.score is not None]
    mean = float(without_rounding_errors(np.mean(scores)))
    return {
        "score": mean,
        "level": task.scale.level(min(max(mean, task.scale.low), task.scale.high)),  # a rounded mean may be outside
        "std": float(np.std(scores)) if len(scores) > 1 else spread,
    }
