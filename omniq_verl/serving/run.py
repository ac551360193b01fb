"""Start a server, run it until it receives a signal, and let it finish its running requests."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from rich.console import Console

from omniq_verl.serving.deployment import CPUS, deployment
from omniq_verl.serving.ports import check_free
from omniq_verl.serving.settings import ServerSettings

NAME = "omniq"
_DRAIN_SECONDS = 10.0
"""Maximum wait for all replicas to acknowledge the shutdown."""


def serve_forever(
    settings: ServerSettings,
    host: str,
    port: int,
    console: Console,
    address: str | None = None,
    started: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: what to serve.
        host: IP address to listen on; 0.0.0.0 means all interfaces.
        port: port to listen on.
        console: where to report that the server is ready.
        address: address of a Ray cluster (``auto``: this machine's); None: start a Ray that ends with the server.
        started: called when the server is ready; None: the address of the API's page is printed.

    Raises:
        ValueError: ``host`` is not an IP address, the port is in use, or this machine has too few GPUs or cores.
        RuntimeError: the replicas did not start.
    """
    import ray
    from ray import serve

    local = address is None and ip_address(host).is_loopback
    if address is None:
        check_free(host, port)  # Ray Serve would report it less clearly, and only after Ray has started
    stopped = threading.Event()
    with ray_of(address):
        for number in (signal.SIGTERM, signal.SIGINT):  # set after Ray, which installs its own handlers
            signal.signal(number, lambda *_: stopped.set())
        serve.start(proxy_location="EveryNode" if address else "HeadOnly", http_options={"host": host, "port": port})
        resources = ray.cluster_resources()
        settings = replace(settings, gpus=gpus_of(settings, resources), local=local)
        if lacking := lacking_resources(settings, resources):
            if address is None:
                raise ValueError(lacking)
            console.print(f"warning: {lacking}; until the cluster grows, the server waits", markup=False)
        serve.run(deployment(settings), name=NAME)
        if started:
            started()
        else:
            console.print(f"ready: http://{host}:{port}/docs", soft_wrap=True, markup=False)
        while not stopped.wait(1):  # signals are not handled during a wait without a timeout
            pass
        console.print("finishing running requests", markup=False)
        drain()
        serve.shutdown()


def drain() -> None:
    """Stop accepting requests, finish the running ones and stop the replicas."""
    from ray import serve

    # Redeploying with changed settings is not an option: Ray Serve would start new replicas, which load the model.
    with suppress(TimeoutError):  # a replica is stuck or starting; delete() below ends it
        serve.get_app_handle(NAME).broadcast("drain").results(timeout_s=_DRAIN_SECONDS, return_exceptions=True)
    serve.delete(NAME)


def gpus_of(settings: ServerSettings, resources: Mapping[str, float]) -> int:
    """Return the GPUs per replica: 0 on a cluster without GPUs, else the model's number, or 1 for RALI alone."""
    if not resources.get("GPU"):
        return 0
    return settings.model.devices if settings.model else 1


def lacking_resources(settings: ServerSettings, resources: Mapping[str, float]) -> str | None:
    """What the smallest number of replicas needs beyond ``resources``; Ray Serve would wait for it without an end."""
    fewest = settings.replicas[0]
    for name, each in (("GPU", settings.gpus), ("CPU", CPUS)):
        needed, found = fewest * each, resources.get(name, 0)
        if needed > found:
            fixes = ["--replicas"] * (fewest > 1) + ["--devices"] * (name == "GPU" and each > 1)
            lower = f"lower {' or '.join(fixes)}" if fixes else "use another machine"
            return (
                f"--replicas {fewest} with {_number(each, name)} each need {_number(needed, name)}, but {found:g}"
                f" {'is' if found == 1 else 'are'} here. Fix: {lower}"
            )
    return None


def _number(count: float, name: str) -> str:
    return f"{count:g} {name}{'' if count == 1 else 's'}"


@contextmanager
def ray_of(address: str | None) -> Iterator[None]:
    """Connect to a running cluster, or start a local Ray."""
    import ray

    where: dict[str, Any] = {"address": address} if address else {"include_dashboard": False, "address": "local"}
    ray.init(**where, log_to_driver=True, logging_level=logging.WARNING)
    try:
        yield
    finally:
        ray.shutdown()
