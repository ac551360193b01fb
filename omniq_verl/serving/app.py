"""The server as an ASGI application, independent of Ray."""

import asyncio
import hmac
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException as HTTPError

from omniq_verl import __version__
from omniq_verl.serving.admission import Draining, Full
from omniq_verl.serving.chat import CHAT, Chats
from omniq_verl.serving.chat_schemas import ChatQuestion
from omniq_verl.serving.demo_page import add_demo
from omniq_verl.serving.middleware import CancelOnDisconnect, OnlyFrom, own_addresses
from omniq_verl.serving.openapi import FAILURES, answered, body, json_body, responses
from omniq_verl.serving.request_parsing import BadRequest, LimitBody
from omniq_verl.serving.routes import AGAIN, Questions, State
from omniq_verl.serving.schemas import CompareAnswers, CompareQuestion, ScoreAnswers, ScoreQuestion
from omniq_verl.serving.settings import key_digest
from omniq_verl.serving.state import Server
from omniq_verl.serving.vllm_score import SCORE, PairQuestion, PairRoute

_ABOUT = (
    "Image scores from a reasoning reward model. Images are sent as files (multipart) or in base64 (JSON); paths"
    " and addresses are not read. An image that cannot be scored gets its own status and does not affect the scores of"
    " the other images."
)
_Key = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


def build_app(server: Server, metrics: Any = None) -> FastAPI:
    """Build the application.

    Args:
        server: models, limits and keys.
        metrics: counts answers and serves the counts at ``/metrics`` (``omniq_verl.serving.metrics.Metrics``).
    """
    app = FastAPIOffline(
        title="omniq_verl",
        version=__version__,
        redoc_url=None,
        description=_ABOUT,
        swagger_ui_parameters={"defaultModelsExpandDepth": 0},
    )
    app.add_middleware(LimitBody, most=server.limits.body)
    if server.local:
        app.add_middleware(OnlyFrom, addresses=own_addresses())
    app.add_middleware(CancelOnDisconnect)
    app.state.server = server
    _add_failures(app)
    _add_questions(app, Questions(server, metrics))
    _add_chats(app, Chats(server, metrics))
    _add_state(app, State(server), metrics)
    add_demo(app)
    return app


def _add_failures(app: FastAPI) -> None:
    @app.exception_handler(BadRequest)
    async def rejected(request: Request, error: BadRequest) -> JSONResponse:
        return _failure(request, error.status, str(error))

    @app.exception_handler(Full)
    async def full(request: Request, error: Full) -> JSONResponse:
        return _failure(request, 429, FAILURES[429], AGAIN)

    @app.exception_handler(Draining)
    async def draining(request: Request, error: Draining) -> JSONResponse:
        return _failure(request, 503, FAILURES[503], AGAIN)

    @app.exception_handler(HTTPError)
    async def failed(request: Request, error: HTTPError) -> JSONResponse:
        return _failure(request, error.status_code, error.detail, error.headers)


def _failure(request: Request, status: int, why: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Build an error. Its body is the same for all routes; clients of OpenAI's API show only ``error.message``."""
    body: dict[str, Any] = {"detail": why}
    if request.url.path == CHAT:
        body["error"] = {"message": why, "type": "invalid_request_error" if status < 500 else "server_error"}
    return JSONResponse(body, status, headers)


def _add_questions(app: FastAPI, routes: Questions) -> None:
    admitted: dict[str, Any] = {"dependencies": [Depends(_admitted)]}
    common = {**admitted, "tags": ["questions"]}
    score, compare = body(ScoreQuestion, ("images",)), body(CompareQuestion, ("a", "b", "reference"))
    pairs: dict[str, Any] = {"responses": responses(), "tags": ["questions"]}
    scores, comparisons = answered(ScoreAnswers), answered(CompareAnswers)
    app.post("/v1/score", openapi_extra=score, **scores, **common)(routes.score_images)
    app.post("/v1/compare", openapi_extra=compare, **comparisons, **common)(routes.compare_pairs)
    app.post(SCORE, openapi_extra=json_body(PairQuestion), **pairs, **admitted)(PairRoute(routes).score_pairs)
    app.post("/verl-omni/{task}", include_in_schema=False, **admitted)(routes.verl_omni)


def _add_chats(app: FastAPI, routes: Chats) -> None:
    common: dict[str, Any] = {"dependencies": [Depends(_admitted)], "responses": responses(), "tags": ["questions"]}
    app.post(CHAT, openapi_extra=json_body(ChatQuestion), **common)(routes.complete)


def _add_state(app: FastAPI, routes: State, metrics: Any) -> None:
    common: dict[str, Any] = {"tags": ["state"]}
    app.get("/v1/tasks", **common)(routes.known_tasks)
    app.get("/healthz", **common)(routes.alive)
    app.get("/readyz", responses=responses(503), **common)(routes.ready)
    if not metrics:
        return

    @app.get("/metrics", response_class=PlainTextResponse, **common)
    async def prometheus() -> str:
        """Metrics of all replicas in Prometheus format."""
        return await asyncio.get_running_loop().run_in_executor(None, metrics.page)


async def _admitted(request: Request, sent: _Key) -> None:
    """Check the API key, if one is required, and the capacity before any of the body is read."""
    server: Server = request.app.state.server
    digest = key_digest(sent.credentials) if sent else ""
    if server.keys and not any(hmac.compare_digest(digest, one) for one in server.keys):
        raise HTTPException(401, FAILURES[401], {"WWW-Authenticate": "Bearer"})
    server.admission.check()
