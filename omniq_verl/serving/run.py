"""Start a server, keep it until it is told to end, and let it finish what is under way."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address

from rich.console import Console

from omniq_verl.serving.deployment import deployment
from omniq_verl.serving.settings import ServerSettings

NAME = "omniq"
_DRAIN_SECONDS = 10.0
"""For all replicas to hear that the server ends."""


def serve_forever(settings: ServerSettings, host: str, port: int, console: Console, address: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: what is served.
        host: IP address to listen at; 0.0.0.0: at all of this machine's.
        port: of it.
        console: says when it is ready.
        address: of a Ray cluster (``auto``: the one of this machine); None: a Ray of its own, that ends with it.

    Raises:
        ValueError: ``host`` is no IP address, or another program listens at the port.
        RuntimeError: the replicas did not come up.
    """
    import ray
    from ray import serve

    local = address is None and ip_address(host).is_loopback
    if address is None:
        check_free(host, port)  # Ray Serve would say so in its own words, and after Ray has started
    told = threading.Event()
    with ray_of(address):
        for number in (signal.SIGTERM, signal.SIGINT):  # behind Ray, which has its own way to end
            signal.signal(number, lambda *_: told.set())
        serve.start(proxy_location="EveryNode" if address else "HeadOnly", http_options={"host": host, "port": port})
        settings = replace(settings, gpus=gpus_of(settings, ray.cluster_resources()), local=local)
        serve.run(deployment(settings), name=NAME)
        console.print(f"ready: http://{host}:{port}/docs", soft_wrap=True, markup=False)
        while not told.wait(1):  # a wait without an end would not hear of signals
            pass
        console.print("finishing what is under way", markup=False)
        drain()
        serve.shutdown()


def check_free(host: str, port: int) -> None:
    """Raises a ValueError where this machine cannot listen at the port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server does: one just ended is no hindrance
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(f"cannot listen at {host}:{port} ({error.strerror}). Fix: another --port") from error


def drain() -> None:
    """No more is begun, what is under way is finished, and the replicas end."""
    from ray import serve

    # Not by a deployment with other settings: of a new version Ray Serve starts new replicas, which load the model.
    with suppress(TimeoutError):  # of a replica that is stuck or starting; what follows ends it
        serve.get_app_handle(NAME).broadcast("drain").results(timeout_s=_DRAIN_SECONDS, return_exceptions=True)
    serve.delete(NAME)


def gpus_of(settings: ServerSettings, resources: dict[str, float]) -> int:
    """GPUs of a replica: where the cluster has any, those of the model, or one for RALI alone."""
    if not resources.get("GPU"):
        return 0
    return settings.model.devices if settings.model else 1


@contextmanager
def ray_of(address: str | None) -> Iterator[None]:
    """A cluster that runs, or a Ray of one's own."""
    import ray

    own = {"include_dashboard": False, "address": "local"}
    ray.init(**({"address": address} if address else own), log_to_driver=True, logging_level="warning")
    try:
        yield
    finally:
        ray.shutdown()
