"""Requests of rollouts that go to verl's servers together. Through a real Ray: test_batched_requests_run.py."""

import asyncio
import inspect
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rollout_builders import digest_of

UPSTREAM = {
    "LLMServerClient.__init__": "37dbec01590324de",
    "LLMServerClient._acquire_server": "168a2119cb912b80",
    "LLMServerClient._release_server": "f266a40e972799b3",
    "LLMServerClient.generate": "b6aeefe3a1a67321",
    "GlobalRequestLoadBalancer.acquire_server": "0701e4aa113fc3a9",
    "GlobalRequestLoadBalancer.release_server": "5bcfc5ce1e96c0bd",
    "GlobalRequestLoadBalancer.require_acquire_fields": "8abf8d535553a19e",
    "GlobalRequestLoadBalancer.require_release_fields": "059a70dd391a6f5e",
}
"""Digests of what verl's functions say that ours replace or rely on (verl 0.9.1)."""


@pytest.fixture(scope="module")
def requests() -> ModuleType:
    import omniq_verl.trainer.batched_requests_verl as module

    return module


@pytest.mark.parametrize("name", UPSTREAM)
def test_verl_s_functions_are_those_that_ours_were_written_for(name):
    from verl.workers.rollout import llm_server

    owner, function = name.split(".")
    found = digest_of(getattr(getattr(llm_server, owner), function))
    assert found == UPSTREAM[name], f"read {name} again, change ours if need be, and record {found}"


TOO_LONG = 40
"""Seed of a request that fails, after as many milliseconds."""


class Actor:
    """An object in place of a Ray actor; ``calls`` has the names of the methods that are asked for."""

    def __init__(self, real: Any):
        self.real, self.calls = real, []

    def __getattr__(self, name: str) -> Any:
        method = self._call if name == "__ray_call__" else getattr(self.real, name)

        def remote(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if inspect.isasyncgenfunction(method):
                return self._stream(method(*args, **kwargs))
            return asyncio.ensure_future(self._reply(method, args, kwargs))

        return SimpleNamespace(remote=remote)

    def _call(self, function: Any, *args: Any) -> Any:
        return function(self.real, *args)

    @staticmethod
    async def _reply(method: Any, args: Any, kwargs: Any) -> Any:
        await asyncio.sleep(0.001)
        found = method(*args, **kwargs)
        return await found if inspect.isawaitable(found) else found

    @staticmethod
    async def _stream(parts: Any) -> Any:
        async for part in parts:
            yield asyncio.sleep(0.001, part)


class PlainServer:
    """verl's server, with an answer that tells what was asked, after as many milliseconds as the seed says."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def generate(self, **asked: Any) -> Any:
        from verl.workers.rollout.replica import TokenOutput

        self.asked.append(asked)
        seed = asked["sampling_params"]["seed"]
        await asyncio.sleep(seed / 1000)
        if seed == TOO_LONG:
            raise ValueError("the prompt is too long")
        return TokenOutput(token_ids=[*asked["prompt_ids"], seed], extra_fields={"global_steps": 4})


class Server(PlainServer):
    """Ours."""

    async def generate_together(self, requests: Any) -> Any:
        from omniq_verl.trainer.as_they_end import as_they_end

        async for part in as_they_end(self.generate(**one) for one in requests):
            yield part


class DeadServer(PlainServer):
    async def generate_together(self, requests: Any) -> Any:
        yield [(0, await self.generate(**requests[0]))]
        raise OSError("the server is dead")


class SilentServer(PlainServer):
    async def generate_together(self, requests: Any) -> Any:
        for _ in ():
            yield []


class Setup:
    """A balancer with servers, and a client of it."""

    def __init__(self, *servers: Any, together: bool = True, **rollout: Any):
        from verl.workers.rollout.llm_server import GlobalRequestLoadBalancer, LLMServerClient

        from omniq_verl.trainer.batched_requests_verl import batched

        self.servers = {f"server {number}": Actor(one) for number, one in enumerate(servers)}
        self.balancer = Actor(GlobalRequestLoadBalancer(self.servers))
        settings = {"name": "vllm", "full_determinism": False, **rollout}
        config = SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=_Settings(settings)))
        plain = LLMServerClient(config, self.balancer)
        self.client = batched(plain) if together else plain

    async def ask(self, seed: int, prompt: tuple[int, ...] = (1, 2)) -> list[int]:
        found = await self.client.generate(
            request_id=f"rollout {seed} of {prompt}",
            prompt_ids=list(prompt),
            sampling_params={"seed": seed},
            image_data=["an image"],
            mm_processor_output=None,
            mm_processor_kwargs={"min_pixels": 4},
            priority=2,
        )
        assert found.extra_fields == {"global_steps": 4, "min_global_steps": 4, "max_global_steps": 4}
        return found.token_ids

    async def warm(self) -> None:
        """The first request, with which a client gets to know its balancer."""
        await self.group([1])
        for actor in (self.balancer, *self.servers.values()):
            actor.calls.clear()
        for server in self.servers.values():
            server.real.asked.clear()

    async def group(self, seeds: Any) -> list[Any]:
        found = await asyncio.wait_for(asyncio.gather(*map(self.ask, seeds), return_exceptions=True), timeout=5)
        await asyncio.sleep(0.01)  # nobody waits for releases
        return found

    def at_work(self) -> int:
        return self.balancer.real.get_total_inflight()


class _Settings(SimpleNamespace):
    def __init__(self, settings: dict[str, Any]):
        super().__init__(**settings)
        self.get = settings.get


def asked_of(*servers: Any, seeds: Any = range(16), **settings: Any) -> tuple[Setup, list[Any]]:
    async def run() -> tuple[Setup, list[Any]]:
        setup = Setup(*servers, **settings)
        await setup.warm()
        return setup, await setup.group(seeds)

    return asyncio.run(run())


def test_a_group_s_messages_go_together():
    setup, found = asked_of(Server())
    assert found == [[1, 2, seed] for seed in range(16)]
    assert setup.servers["server 0"].calls == ["generate_together"]
    # One acquires. The answers end one by one, and are released so.
    assert setup.balancer.calls[0] == "__ray_call__"
    assert len(setup.balancer.calls) <= 1 + 16
    assert setup.at_work() == 0


def test_a_server_is_asked_what_verl_s_client_asks_of_it():
    (ours, _), (verls, _) = asked_of(Server()), asked_of(Server(), together=False)
    asked = [[{**one, "request_id": None} for one in setup.servers["server 0"].real.asked] for setup in (ours, verls)]
    assert asked[0] == asked[1] and len(asked[0]) == 16
    assert asked[0][0]["priority"] == 2
    assert len({one["request_id"] for one in ours.servers["server 0"].real.asked}) == 16


def test_requests_are_spread_over_servers_as_verl_spreads_them():
    setup, found = asked_of(Server(), Server(), Server(), Server())
    assert found == [[1, 2, seed] for seed in range(16)]
    assert [len(server.real.asked) for server in setup.servers.values()] == [4] * 4
    assert [server.calls for server in setup.servers.values()] == [["generate_together"]] * 4
    assert setup.at_work() == 0


def failed(found: list[Any]) -> list[str]:
    return [str(one) for one in found if isinstance(one, Exception)]


def test_a_request_that_fails_does_not_take_its_group_along():
    setup, found = asked_of(Server(), seeds=[*range(15), TOO_LONG])
    assert found[:15] == [[1, 2, seed] for seed in range(15)]
    assert failed(found) == ["the prompt is too long"]
    assert setup.at_work() == 0


@pytest.mark.parametrize(
    ("server", "said"), [(DeadServer, "the server is dead"), (SilentServer, "ended without an answer")]
)
def test_a_server_that_dies_fails_the_requests_that_it_has_not_answered(server, said):
    setup, found = asked_of(server(), seeds=[3, 4, 5])
    answered = [[1, 2, 3]] if server is DeadServer else []
    assert [one for one in found if isinstance(one, list)] == answered
    assert set(map(type, found[len(answered) :])) <= {OSError, RuntimeError}
    assert all(said in one for one in failed(found))
    assert setup.at_work() == 0


def test_one_dead_server_does_not_fail_the_requests_of_another():
    setup, found = asked_of(DeadServer(), Server(), seeds=range(8))
    assert len(failed(found)) == 3  # it answered one of its four
    assert setup.at_work() == 0


def test_without_a_server_every_request_fails_as_with_verl():
    _, found = asked_of(seeds=range(3))
    assert failed(found) == ["No available servers in load balancer"] * 3


def test_a_rollout_that_is_cancelled_leaves_the_others_alone():
    async def run() -> Setup:
        setup = Setup(Server())
        await setup.warm()
        tasks = [asyncio.ensure_future(setup.ask(seed)) for seed in (20, 21, 22)]
        await asyncio.sleep(0)
        tasks[0].cancel()  # while it waits for a server
        await asyncio.sleep(0.01)
        tasks[1].cancel()  # while it waits for its answer
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout=5)
        await asyncio.sleep(0.02)
        assert list(map(type, found)) == [asyncio.CancelledError, asyncio.CancelledError, list]
        return setup

    assert asyncio.run(run()).at_work() == 0


def test_requests_of_another_turn_do_not_wait_for_earlier_answers():
    async def run() -> None:
        setup = Setup(Server())
        await setup.warm()
        slow = asyncio.ensure_future(setup.ask(2000))
        await asyncio.sleep(0.01)
        assert await asyncio.wait_for(setup.ask(2), timeout=1) == [1, 2, 2]
        slow.cancel()

    asyncio.run(run())


def test_a_server_that_is_not_ours_is_asked_one_by_one():
    setup, found = asked_of(PlainServer())
    assert found == [[1, 2, seed] for seed in range(16)]
    assert setup.servers["server 0"].calls == ["generate"] * 16
    assert setup.at_work() == 0


def test_a_balancer_that_looks_into_requests_is_asked_as_verl_asks_it(monkeypatch):
    from verl.workers.rollout.llm_server import GlobalRequestLoadBalancer

    seen = []
    real = GlobalRequestLoadBalancer.acquire_server

    def acquire(self, request_id: str, prompt_ids: Any) -> Any:
        seen.append(prompt_ids)
        return real(self, request_id)

    monkeypatch.setattr(GlobalRequestLoadBalancer, "require_acquire_fields", lambda self: ["prompt_ids"])
    monkeypatch.setattr(GlobalRequestLoadBalancer, "acquire_server", acquire)
    _, found = asked_of(Server(), seeds=range(4))
    assert found == [[1, 2, seed] for seed in range(4)]
    assert seen == [[1, 2]] * 5


def test_what_verl_s_worker_adds_to_its_client_is_kept(requests):
    plain = Setup(Server(), together=False).client
    plain.tokenizer = object()
    assert requests.batched(plain).tokenizer is plain.tokenizer


def test_other_clients_and_balancers_are_left_alone(requests):
    from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient

    settings = SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=_Settings({})))
    for other in (object(), FullyAsyncLLMServerClient(settings, None)):
        assert requests.batched(other) is other
    own = Setup(Server(), router_config_path="mine.yaml").client
    assert type(own).__name__ == "LLMServerClient"
