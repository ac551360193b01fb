"""Request and response bodies of the routes."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from omniq_verl.data.files import whole_text
from omniq_verl.scoring.comparison import Comparison
from omniq_verl.scoring.scorer import Score
from omniq_verl.tasks import Task

Base64 = Annotated[str, Field(description="An image file in base64, or a data URL (data:image/png;base64,...).")]
Temperature = Annotated[float, Field(gt=0, le=2, allow_inf_nan=False, description="Used if samples > 1.")]


class Sent(BaseModel):
    """A part of a request. No other fields are allowed; null is the same as a field that is left out."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def drop_null(cls, sent: Any) -> Any:
        """Leave out the fields that are null: clients in typed languages send every field that they know."""
        return {name: value for name, value in sent.items() if value is not None} if isinstance(sent, dict) else sent


class _Asked(Sent):
    samples: Annotated[int, Field(ge=1, description="Answers per image; 1 decodes greedily.")] = 1
    temperature: Temperature = 1.0
    reasoning: Annotated[bool, Field(description="Also return the model's reasoning and its whole answer.")] = False
    stream: Annotated[
        bool,
        Field(
            description="Send the answer as server-sent events: `piece` (PieceEvent) while the model writes, if its"
            " engine can show that, then `result` with the plain response, or `error` with status and detail."
            " Requires samples 1."
        ),
    ] = False

    @model_validator(mode="after")
    def check_stream(self) -> "_Asked":
        """Raise a ValueError if several answers would have to be streamed."""
        if self.stream and self.samples > 1:
            raise ValueError("stream needs samples 1")
        return self


class ScoreQuestion(_Asked):
    """Images, and the tasks to ask about each."""

    images: Annotated[list[Base64], Field(min_length=1)]
    task: Annotated[
        str | list[str], Field(description="One task of GET /v1/tasks, or several to ask about each image.")
    ] = "technical"
    prompt: Annotated[
        str | list[str] | None,
        Field(description="The text the images were generated from, for alignment: one for all, or one per image."),
    ] = None
    model: Annotated[
        Literal["reasoning", "rali"] | None, Field(description="Null: the reasoning model if it is served, else RALI.")
    ] = None
    mode: Annotated[
        Literal["reason", "direct", "both"] | None,
        Field(
            description="How the reasoning model gives a score. reason: it reasons and answers. direct: the expected"
            " value of its score, without reasoning; requires samples 1. both: both, with the second in the field"
            " `direct` of each answer. Null: the server's default (GET /v1/tasks)."
        ),
    ] = None


class Pair(Sent):
    """Two images, and optionally the image both were made from."""

    a: Base64
    b: Base64
    reference: Base64 | None = None


class CompareQuestion(_Asked):
    """Pairs of images; the answer names the better image of each."""

    pairs: Annotated[list[Pair], Field(min_length=1)]


class DirectAnswer(BaseModel):
    """The score of one image without reasoning."""

    status: str
    score: float | None = None
    level: str | None = None
    std: Annotated[float | None, Field(description="Standard deviation of the distribution.")] = None
    outside: Annotated[
        float | None, Field(description="Probability that the model would write anything but a number on the scale.")
    ] = None
    error: str | None = None


class ScoreAnswer(BaseModel):
    """Answer for one image and task. Unless status is "ok" there is no score, and ``error`` may give the reason."""

    status: Annotated[str, Field(description='"ok", "bad_image", "error", or why no answer could be parsed.')]
    score: float | None = None
    level: str | None = None
    distortion: str | None = None
    severity: str | None = None
    std: Annotated[
        float | None,
        Field(description="Standard deviation of several answers; in mode direct, of the distribution."),
    ] = None
    outside: Annotated[
        float | None,
        Field(description="In mode direct: probability that the model would write anything but a number on the scale."),
    ] = None
    parsed: int = 0
    answers: int = 0
    reasoning: str | None = None
    answer: str | None = None
    error: str | None = None
    direct: Annotated[DirectAnswer | None, Field(description="In mode both: the score without reasoning.")] = None


class ImageAnswer(BaseModel):
    """All answers for one image."""

    name: str
    scores: Annotated[dict[str, ScoreAnswer], Field(description="By task.")]


class ScoreAnswers(BaseModel):
    """Answers for a request, in the order of its images."""

    results: list[ImageAnswer]


class CompareAnswer(BaseModel):
    """Answer for one pair, asked in both orders."""

    status: str
    winner: Annotated[Literal["a", "b"] | None, Field(description="Null: the orders disagree.")] = None
    share_a: float | None = None
    share_first: Annotated[
        float | None, Field(description="Share of answers for the image shown first; 0.5 means no position bias.")
    ] = None
    agree: bool | None = None
    reasoning: list[str | None] | None = None
    parsed: Annotated[int, Field(description="Answers that could be parsed, over both orders.")] = 0
    answers: int = 0
    error: str | None = None


class CompareAnswers(BaseModel):
    """Answers for a request, in the order of its pairs."""

    results: list[CompareAnswer]


class PieceEvent(BaseModel):
    """A part of an answer while it is written: the text of one token, or of several that share a character."""

    index: Annotated[int, Field(description="Of the image or the pair in the request, from 0.")]
    name: Annotated[str, Field(description='The task; in a comparison the order, "ab" or "ba".')]
    text: str
    surprise: Annotated[
        list[float], Field(description="For each token, minus the logarithm of its probability, in nats.")
    ]
    entropy: Annotated[
        list[float] | None,
        Field(
            description="For each token, the exact entropy of the distribution over the whole vocabulary, in nats."
            " Null: the engine does not compute it."
        ),
    ] = None


class TaskAbout(BaseModel):
    """A task that can be asked."""

    name: str
    low: float | None = None
    high: float | None = None
    needs_prompt: bool


class Tasks(BaseModel):
    """Models and tasks of this server."""

    models: list[str]
    tasks: list[TaskAbout]
    rali_task: str | None = None
    modes: Annotated[list[str], Field(description="Modes of the reasoning model that a request can ask for.")] = []
    mode: Annotated[str | None, Field(description="Mode used if a request names none.")] = None
    family: Annotated[str | None, Field(description="Family of the reasoning model, if one was given.")] = None


class Failure(BaseModel):
    """Why a request was rejected."""

    detail: str


def score_answer(score: Score, reasoning: bool, direct: Score | None = None) -> ScoreAnswer:
    """Convert a score for the response, with its texts only if requested, and the direct score of the same image."""
    texts = {"reasoning": _whole(score.reasoning), "answer": _whole(score.answer)} if reasoning else {}
    return ScoreAnswer(
        status=score.status,
        score=score.score,
        level=score.level,
        distortion=score.distortion,
        severity=score.severity,
        std=score.std,
        outside=score.outside,
        parsed=score.parsed,
        answers=score.answers,
        error=_whole(score.error),
        direct=None if direct is None else direct_answer(direct),
        **texts,
    )


def direct_answer(score: Score) -> DirectAnswer:
    """Convert a score of the mode ``direct`` for the response to ``both``."""
    figures = {name: getattr(score, name) for name in ("status", "score", "level", "std", "outside")}
    return DirectAnswer(error=_whole(score.error), **figures)


def score_answers(
    names: Sequence[str],
    found: Sequence[Mapping[str, Score]],
    reasoning: bool,
    direct: Sequence[Mapping[str, Score]] | None = None,
) -> ScoreAnswers:
    """Convert the scores of several images, by task, for the response; ``direct`` has those of the mode direct."""
    results = []
    for name, by_task, beside in zip(names, found, direct or [{}] * len(names), strict=True):
        scores = {task: score_answer(score, reasoning, beside.get(task)) for task, score in by_task.items()}
        results.append(ImageAnswer(name=name, scores=scores))
    return ScoreAnswers(results=results)


def task_about(task: Task) -> TaskAbout:
    """Describe a task for clients."""
    low, high = (task.scale.low, task.scale.high) if task.scale else (None, None)
    return TaskAbout(name=task.name, low=low, high=high, needs_prompt=task.needs_text)


def compare_answer(found: Comparison, reasoning: bool) -> CompareAnswer:
    """Convert a comparison for the response."""
    return CompareAnswer(
        status=found.status,
        winner=None if found.winner is None else ("a" if found.winner == "A" else "b"),
        share_a=found.share_a,
        share_first=found.share_first,
        agree=found.agree,
        reasoning=[_whole(text) for text in found.reasoning] if reasoning else None,
        parsed=found.parsed,
        answers=found.answers,
        error=_whole(found.error),
    )


def _whole(text: str | None) -> str | None:
    """Make a text encodable as UTF-8, because a model may write half of a surrogate pair."""
    return None if text is None else whole_text(text)
