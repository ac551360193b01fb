"""Bodies of ``POST /v1/chat/completions``: the part of OpenAI's chat API that fits questions about images."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from omniq_verl.serving.schemas import ScoreAnswer, Sent

Zero = Annotated[float, Field(ge=0, le=0, description="Accepted because clients send its default; no other value is.")]


class ImageUrl(Sent):
    """An image of a turn."""

    url: Annotated[str, Field(description="A data URL (data:image/png;base64,...). No other URL is read.")]
    detail: Annotated[
        Literal["auto", "low", "high"] | None,
        Field(description="Accepted and ignored: the model sees images as it did in training."),
    ] = None


class Part(Sent):
    """A part of a turn: a text or an image."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None

    @field_validator("image_url", mode="before")
    @classmethod
    def read_plain_url(cls, sent: Any) -> Any:
        """Take ``"image_url": URL`` as ``"image_url": {"url": URL}``, as vLLM does."""
        return {"url": sent} if isinstance(sent, str) else sent

    @model_validator(mode="after")
    def check_type(self) -> "Part":
        """Raise a ValueError unless exactly the field named by ``type`` is given."""
        given = [name for name in ("text", "image_url") if getattr(self, name) is not None]
        if given != [self.type]:
            raise ValueError(f"a part of the type {self.type} has the field {self.type}, and no other")
        return self


class Turn(Sent):
    """The only turn."""

    role: Literal["user"]
    content: list[Part] | str


class ChatQuestion(Sent):
    """A chat with one user turn, about a task of ``GET /v1/tasks``."""

    model: Annotated[str, Field(description='The task: "technical" or "omniq/technical".')]
    messages: Annotated[list[Turn], Field(min_length=1, max_length=1)]
    prompt: Annotated[
        str | None,
        Field(description="Not in OpenAI's API: the text the image was generated from, for the task's own question."),
    ] = None
    n: Annotated[int, Field(ge=1, description="Number of answers.")] = 1
    temperature: Annotated[
        float | None, Field(ge=0, le=2, allow_inf_nan=False, description="Null: 0 for one answer, otherwise 1.")
    ] = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    max_tokens: Annotated[int | None, Field(ge=1, description="Null: the server's own limit.")] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, description="A newer name for max_tokens.")] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**31, description="Null: the server's own.")] = None
    stream: Annotated[bool, Field(description="Must be false: an answer is sent as a whole.")] = False
    frequency_penalty: Zero = 0
    presence_penalty: Zero = 0
    logprobs: Annotated[Literal[False], Field(description="Only false.")] = False
    user: Annotated[str | None, Field(description="Accepted and ignored.")] = None


class Reply(BaseModel):
    """The model's turn."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    """One of the answers."""

    index: int
    message: Reply
    finish_reason: Annotated[Literal["stop", "length"], Field(description='"length": cut off at max_tokens.')]


class Usage(BaseModel):
    """Tokens of the request."""

    completion_tokens: Annotated[int, Field(description="Summed over all answers.")]
    prompt_tokens: Annotated[None, Field(description="Always null: the engines do not report it.")] = None
    total_tokens: Annotated[None, Field(description="Always null, like prompt_tokens.")] = None


class ChatAnswer(BaseModel):
    """The answers, and what was parsed from them."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: Annotated[int, Field(description="Seconds since 1970.")]
    model: str
    choices: list[Choice]
    usage: Usage
    omniq: Annotated[ScoreAnswer, Field(description="Not in OpenAI's API: the score, as in POST /v1/score.")]
