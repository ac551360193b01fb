"""verl's client of the vLLM servers, with the messages of rollouts put together.

Besides its row, a rollout of verl's has three messages for other processes: it asks the load balancer for a server
(``workers/rollout/llm_server.py:81``), asks that server for an answer (``:150``), and tells the balancer when it has
come (``:88``). Each takes both sides some tenths of a millisecond of CPU time, and the second carries the images. Here
all messages of one turn of the event loop are one, e.g. those of a group, and answers that end together come together.

verl's balancer still chooses a server for each request, and verl's server still answers each by itself.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from verl.workers.rollout.llm_server import LLMServerClient


def batched(client: Any) -> Any:
    """A client whose messages go together, or the same one where it is not verl's plain client and balancer."""
    if type(client) is not LLMServerClient or client.config.actor_rollout_ref.rollout.get("router_config_path"):
        return client
    return BatchedClient(client)


@dataclass(frozen=True)
class _Waiting:
    message: Any
    reply: asyncio.Future = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, reply: Any) -> None:
        if self.reply.done():  # its rollout was cancelled
            return
        self.reply.set_exception(reply) if isinstance(reply, Exception) else self.reply.set_result(reply)


class _Together:
    """Messages of one turn of the event loop, which ``send`` sends and ends."""

    def __init__(self, send: Callable[[Sequence[_Waiting]], Coroutine[Any, Any, None]]):
        self._send = send
        self._waiting: list[_Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, message: Any) -> asyncio.Future:
        one = _Waiting(message)
        self._waiting.append(one)
        if len(self._waiting) == 1:
            task = asyncio.create_task(self._send_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return one.reply

    async def _send_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        error: Exception = RuntimeError("the server ended without an answer")
        try:
            await self._send(waiting)
        except Exception as found:  # any error: no rollout may be left waiting
            error = found
        for one in waiting:
            one.end(error)


class BatchedClient(LLMServerClient):
    """verl's client, with other ways for the messages of its ``generate``."""

    def __init__(self, client: LLMServerClient):
        super().__init__(client.config, client._load_balancer)
        vars(self).update(vars(client))  # a worker adds a tokenizer for traces (agent_loop.py:549)
        self._acquired = _Together(self._acquire_together)
        self._released = _Together(self._release_together)
        self._asked: dict[Any, _Together] = {}  # by server

    async def _acquire_server(self, request_id: str, **extra: Any) -> tuple[str, Any]:
        # Before its first answer, and with a balancer that looks into requests, verl asks as it does.
        if self._lb_require_acquire_fields == []:
            server_id, server = await self._acquired.add(request_id)
        else:
            server_id, server = await super()._acquire_server(request_id, **extra)
        if not hasattr(server, "generate_together"):
            return server_id, server
        if server not in self._asked:
            self._asked[server] = _Together(lambda waiting: _generate_together(server, waiting))
        add = self._asked[server].add
        return server_id, SimpleNamespace(generate=SimpleNamespace(remote=lambda **request: add(request)))

    def _release_server(self, server_id: str, request_id: str | None = None) -> None:
        if self._lb_require_release_fields == []:
            self._released.add(server_id)
        else:
            super()._release_server(server_id, request_id)

    async def _acquire_together(self, waiting: Sequence[_Waiting]) -> None:
        servers = await self._load_balancer.__ray_call__.remote(_acquire_all, [one.message for one in waiting])
        for one, (server_id, server) in zip(waiting, servers, strict=True):
            if one.reply.done():  # its rollout was cancelled
                self._release_server(server_id)
            one.end((server_id, server))

    async def _release_together(self, waiting: Sequence[_Waiting]) -> None:
        # As in verl, nobody waits for it.
        self._load_balancer.__ray_call__.remote(_release_all, [one.message for one in waiting])
        for one in waiting:
            one.end(None)


async def _generate_together(server: Any, waiting: Sequence[_Waiting]) -> None:
    async for part in server.generate_together.remote([one.message for one in waiting]):
        for number, answer in await part:
            waiting[number].end(answer)


def _acquire_all(balancer: Any, request_ids: Sequence[str]) -> list[tuple[str, Any]]:
    return [balancer.acquire_server(request_id=request_id) for request_id in request_ids]


def _release_all(balancer: Any, server_ids: Sequence[str]) -> None:
    for server_id in server_ids:
        balancer.release_server(server_id=server_id)
