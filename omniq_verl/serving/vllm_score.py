"""``POST /score``: scores of images in the shape of vLLM's route for pairs of a query and a document.

The document is an image, and the query is the text that it was generated from. If the task needs no text, the query is
empty. The response has no field for an image without a score, so one such image fails the whole request.
"""

import time
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import BaseModel, Field, model_validator

from omniq_verl.data.files import whole_text
from omniq_verl.scoring.scorer import Score
from omniq_verl.serving.chat import decoded_url, task_of_model
from omniq_verl.serving.chat_schemas import Part
from omniq_verl.serving.request_parsing import BadRequest, File, Prompts, check_prompts, read_json
from omniq_verl.serving.routes import Questions
from omniq_verl.serving.schemas import Sent

SCORE = "/score"
_NAMES = (("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2"))
"""vLLM's names of the two sides (``vllm.entrypoints.pooling.scoring.protocol``)."""


class Content(Sent):
    """A side as parts, e.g. an image."""

    content: Annotated[list[Part], Field(min_length=1)]


Side = str | Content
Sides = Side | list[Side]


class PairQuestion(Sent):
    """Queries and documents: one query for all documents, or one for each."""

    model: Annotated[str, Field(description='The task: "technical" or "omniq/technical".')]
    queries: Annotated[
        Sides | None, Field(description='The text the image was generated from; "" for a task that needs no text.')
    ] = None
    documents: Annotated[Sides | None, Field(description="Images: content with one part image_url, a data URL.")] = None
    items: Annotated[Sides | None, Field(description="Another name for documents.")] = None
    text_1: Annotated[Sides | None, Field(description="With text_2: older names for queries and documents.")] = None
    text_2: Sides | None = None
    data_1: Annotated[Sides | None, Field(description="With data_2: other names for queries and documents.")] = None
    data_2: Sides | None = None
    user: Annotated[str | None, Field(description="Accepted and ignored.")] = None

    @model_validator(mode="after")
    def check_sides(self) -> "PairQuestion":
        """Raise a ValueError unless exactly two sides are given that belong together."""
        given = {name for pair in _NAMES for name in pair if getattr(self, name) is not None}
        if given not in [set(pair) for pair in _NAMES]:
            raise ValueError("give queries and documents, and no other sides")
        return self

    @property
    def sides(self) -> tuple[list[Side], list[Side]]:
        """Queries and documents, as lists."""
        pair = next(pair for pair in _NAMES if all(getattr(self, name) is not None for name in pair))
        first, second = (getattr(self, name) for name in pair)
        return _listed(first), _listed(second)


class PairScore(BaseModel):
    """The score of one document."""

    index: int
    object: Literal["score"] = "score"
    score: Annotated[float, Field(description="On the task's scale (GET /v1/tasks).")]


class PairScores(BaseModel):
    """The scores in the order of the documents."""

    id: str
    object: Literal["list"] = "list"
    created: Annotated[int, Field(description="Seconds since 1970.")]
    model: str
    data: list[PairScore]
    usage: Annotated[dict[str, Any], Field(description="Always empty: the engines do not report it.")] = {}


@dataclass(frozen=True)
class PairRoute:
    """The route."""

    questions: Questions

    async def score_pairs(self, request: Request) -> PairScores:
        """Score images in the shape of vLLM's route `/score`; the model's name selects the task."""
        server = self.questions.server
        question = await read_json(request, PairQuestion, "application/json")
        task = task_of_model(question.model, server)
        if task.scale is None:
            raise BadRequest(422, f"model: the task {task.name} gives no score")
        files, prompts = _read(question, task.needs_text, server.limits.images)
        check_prompts(prompts, server.limits)
        found = await self.questions.plain_scores(task, files, prompts)
        return PairScores(
            id=f"score-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=question.model,
            data=[PairScore(index=index, score=_scored(index, one)) for index, one in enumerate(found)],
        )


def _listed(sides: Sides) -> list[Side]:
    return sides if isinstance(sides, list) else [sides]


def _read(question: PairQuestion, needs_text: bool, most: int) -> tuple[list[File], Prompts]:
    queries, documents = question.sides
    if not documents or len(queries) not in (1, len(documents)):
        raise BadRequest(
            422, f"{len(queries)} queries for {len(documents)} documents. Fix: send one for all, or one for each"
        )
    if len(documents) > most:
        raise BadRequest(413, f"{len(documents)} documents; at most {most} per request")
    texts = [_text(number, query) for number, query in enumerate(queries)] * (len(documents) // len(queries))
    if not needs_text and any(texts):
        raise BadRequest(422, f"queries: the task {question.model} uses no text. Fix: send an empty query")
    return [_image(number, one) for number, one in enumerate(documents)], [text or None for text in texts]


def _text(number: int, query: Side) -> str:
    if isinstance(query, str):
        return query
    if any(part.text is None for part in query.content):
        raise BadRequest(422, f"query {number}: it is a text, not an image")
    return "".join(part.text or "" for part in query.content)


def _image(number: int, document: Side) -> File:
    parts = [] if isinstance(document, str) else document.content
    if len(parts) != 1 or parts[0].image_url is None:
        raise BadRequest(422, f"document {number}: send an image, as content with one part image_url")
    return decoded_url(parts[0].image_url.url, number)


def _scored(index: int, score: Score) -> float:
    if score.score is None:
        raise BadRequest(422, f"document {index}: no score: {whole_text(score.error or score.status)}")
    return score.score
