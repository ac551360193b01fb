"""``omniq serve``: serves scores over HTTP."""

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

import typer

from omniq_verl.command_line import reject_idle
from omniq_verl.console import cli_errors
from omniq_verl.generation import options
from omniq_verl.logs import set_up_logs
from omniq_verl.serving.haproxy import prefer_haproxy

KEYS = "OMNIQ_API_KEYS"


def serve(
    model: Annotated[
        str | None, typer.Option(help="Reasoning model: Hugging Face folder or name, or a training run's folder.")
    ] = None,
    rali: Annotated[Path | None, typer.Option(help="Folder of omniq rali fit; with or without --model.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 means all interfaces.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join (auto: this machine's). Default: start a new one.")
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Minimum replicas.")] = 1,
    max_replicas: Annotated[int | None, typer.Option(min=1, help="Maximum replicas under load.")] = None,
    devices: options.DEVICES = 1,
    max_model_len: options.LENGTH = None,
    max_tokens: options.MAX_TOKENS = 1024,
    scale: options.SCALE = None,
    mode: options.SERVED_MODE = None,
    family: options.FAMILY = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Also serve a custom task: package.module:object. Repeatable."),
    ] = None,
    dtype: options.DTYPE = "auto",
    memory: options.MEMORY = None,
    engine: Annotated[str, typer.Option(help="vllm, or your own package.module:function.")] = "vllm",
    seed: options.SEED = 0,
    max_body: Annotated[int, typer.Option(min=1, help="Maximum size of a request in MiB.")] = 64,
    max_images: Annotated[int, typer.Option(min=1, help="Maximum images per request.")] = 64,
    max_pixels: Annotated[int, typer.Option(min=1, help="Maximum pixels per image.")] = 2**26,
    max_waiting: Annotated[int, typer.Option(min=1, help="Images in progress per replica; beyond it: 429.")] = 512,
    timeout: Annotated[float, typer.Option(help="Time limit of a request in seconds.")] = 120.0,
    allow_pickle: options.PICKLE = False,
    trust_remote_code: options.TRUST = False,
    verbose: options.VERBOSE = False,
) -> None:
    """Serve a model's scores over HTTP, on this machine or a Ray cluster.

    Example: omniq serve --model runs/stage2 --port 8000; API docs are at http://localhost:8000/docs

    OMNIQ_API_KEYS holds the accepted API keys, separated by commas; if it is unset, no key is required. On SIGTERM
    the server finishes running requests before it exits.
    """
    from omniq_verl.families.find import as_family
    from omniq_verl.generation.spec import EngineSpec
    from omniq_verl.serving.limits import Limits
    from omniq_verl.serving.settings import IMAGES, ServerSettings
    from omniq_verl.tasks import scale_of

    set_up_logs(verbose)
    _reject_idle_options(model, family, replicas, max_replicas)
    with cli_errors() as console:
        if scale is not None and model is None:
            raise ValueError("--scale applies only to a reasoning model; RALI has its own scale. Fix: remove --scale")
        trust: dict[str, Any] = {"allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
        size = {"max_model_len": max_model_len, "dtype": dtype, "memory": memory, "devices": devices}
        spec = EngineSpec(model, engine, images=IMAGES, **size, **trust) if model else None
        found = None
        if spec is not None and family is not None:
            spec, found = as_family(spec, None if family == "auto" else family)
        settings = ServerSettings(
            spec,
            None if rali is None else str(rali.resolve()),
            Limits(max_body * 2**20, max_images, max_pixels, seconds=timeout, waiting=max(max_waiting, max_images)),
            (replicas, max(replicas, max_replicas or 0)),
            max_tokens,
            seed,
            accepted_keys(os.environ.get(KEYS)),
            scale=scale_of(scale),
            tasks=tuple(task or ()),
            family=found,
            mode=mode,
        )
        host = checked_host(host)
        settings.check()
        if settings.model:
            options.print_checkpoint(model, settings.model)
        if address is None:
            prefer_haproxy()
        _serve_forever()(settings, host, port, console, address)


def checked_host(host: str) -> str:
    """Return the IP address to listen on.

    Raises:
        ValueError: the host is neither an IP address nor ``localhost``.
    """
    try:
        return "127.0.0.1" if host == "localhost" else str(ip_address(host))
    except ValueError:
        fix = "use 127.0.0.1 for this machine alone, 0.0.0.0 for all interfaces, or the address of one"
        raise ValueError(f"--host {host!r} is no IP address. Fix: {fix}") from None


def accepted_keys(given: str | None) -> frozenset[str]:
    """Return the digests of the accepted API keys; empty if no key is required.

    Args:
        given: the keys, separated by commas or white space; None: no key is required.

    Raises:
        ValueError: the value contains no key, so the server would answer everyone although nobody asked for that; or a
            key cannot be sent in a header.
    """
    from omniq_verl.generation.addresses import checked_key
    from omniq_verl.serving.settings import key_digest

    if given is None:
        return frozenset()
    keys = [checked_key(key, KEYS) for key in given.replace(",", " ").split()]
    if not keys:
        raise ValueError(f"{KEYS} is set, but holds no key. Fix: unset it to answer everyone, or write keys into it")
    return frozenset(map(key_digest, keys))


def _reject_idle_options(model: str | None, family: str | None, replicas: int, max_replicas: int | None) -> None:
    reasoned = (*options.OF_ENGINES, "max_tokens", "seed", "mode", "family", "task")
    reject_idle(dict.fromkeys(reasoned, None if model else "without --model: a RALI alone is served"))
    reject_idle({"task": None if family is None else "with --family, whose tasks are served"})
    few = f"below --replicas {replicas}" if max_replicas is not None and max_replicas < replicas else None
    reject_idle({"max_replicas": few})


def _serve_forever() -> Any:
    try:
        from omniq_verl.serving.run import serve_forever
    except ImportError as error:
        raise ValueError(f"{error}. Fix: pip install 'omniq-verl[serve]'") from error
    return serve_forever
