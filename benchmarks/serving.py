"""Compare `omniq serve` with plain `vllm serve`: the same model, images and clients, in alternating turns.

    python benchmarks/serving.py --run runs/quickstart                        # 64 clients, 4 turns of 30 s each
    python benchmarks/serving.py --run runs/quickstart --requests 10000       # then 10,000 more: is memory flat?

``--run`` is the folder of a finished ``make quickstart``. Both servers run all the time and are queried in turns. Every
request carries one base64 image whose answer is known from a previous request on its own, so lost answers and answers
for the wrong image can be counted. A few answers may differ because a batch rounds differently; mixed-up images would
cause many.
"""

import argparse
import asyncio
import base64
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
from scoring import LENGTH, images_of, last_model, serve

from omniq_verl.data.images import data_url
from omniq_verl.tasks import TECHNICAL

TOKENS = 40


@dataclass
class Way:
    """One of the servers."""

    name: str
    process: subprocess.Popen
    url: str
    bodies: list[bytes]
    read: Callable[[dict[str, Any]], str]
    known: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    lost: int = 0
    other: int = 0


def plain(model: Path, images: list[bytes]) -> Way:
    process, base = serve(model)
    text = TECHNICAL.messages(None)[0]["content"].removeprefix("<image>")

    def body(image: bytes) -> bytes:
        shown = {"type": "image_url", "image_url": {"url": data_url(image)}}
        turn = {"role": "user", "content": [shown, {"type": "text", "text": text}]}
        return json.dumps({"model": str(model), "messages": [turn], "temperature": 0, "max_tokens": TOKENS}).encode()

    def read(answer: dict[str, Any]) -> str:
        return answer["choices"][0]["message"]["content"]

    return Way("vllm serve", process, f"{base}/chat/completions", list(map(body, images)), read)


def ours(model: Path, images: list[bytes], port: int) -> Way:
    command = [sys.executable, "-m", "omniq_verl.cli", "serve", "--model", str(model), "--port", str(port)]
    command += ["--dtype", "float32", "--max-model-len", str(LENGTH), "--memory", "0.2", "--max-tokens", str(TOKENS)]
    log = tempfile.TemporaryFile()  # noqa: SIM115  of the process that is started
    process = subprocess.Popen(command, stdout=log, stderr=log)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
            break
        except OSError:
            if process.poll() is not None:
                log.seek(0)
                raise SystemExit(log.read().decode()[-3000:]) from None
            time.sleep(1)

    def body(image: bytes) -> bytes:
        return json.dumps({"images": [base64.b64encode(image).decode()], "reasoning": True}).encode()

    def read(answer: dict[str, Any]) -> str:
        return answer["results"][0]["scores"]["technical"]["answer"]

    return Way("omniq serve", process, f"http://127.0.0.1:{port}/v1/score", list(map(body, images)), read)


async def ask(session: aiohttp.ClientSession, way: Way, number: int) -> str:
    async with session.post(way.url, data=way.bodies[number], headers={"Content-Type": "application/json"}) as got:
        if got.status != 200:
            raise RuntimeError(f"{way.name}: HTTP {got.status}: {(await got.text())[:300]}")
        return way.read(await got.json())


async def turn(way: Way, clients: int, seconds: float, most: int | None = None) -> int:
    """Send requests for ``seconds``, or ``most`` requests; returns their number."""
    numbers, end, done = itertools.count(), time.perf_counter() + seconds, 0

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while time.perf_counter() < end and (most is None or done < most):
            number, start = next(numbers) % len(way.bodies), time.perf_counter()
            try:
                answer = await ask(session, way, number)
            except (RuntimeError, aiohttp.ClientError, asyncio.TimeoutError) as error:
                print(error, file=sys.stderr)
                way.lost += 1
                continue
            way.seconds.append(time.perf_counter() - start)
            way.other += answer != way.known[number]
            done += 1

    start = time.perf_counter()
    async with session_of(clients) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    way.rates.append(done / (time.perf_counter() - start))
    return done


def session_of(clients: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=clients), timeout=aiohttp.ClientTimeout(total=300)
    )


async def learn(way: Way) -> None:
    """Record each image's answer when asked alone."""
    async with session_of(1) as session:
        way.known = [await ask(session, way, number) for number in range(len(way.bodies))]


def memory(way: Way) -> float:
    """Memory of the server's processes in MiB; shared memory is counted once."""
    family = [psutil.Process(way.process.pid), *psutil.Process(way.process.pid).children(recursive=True)]
    return sum(one.memory_full_info().pss for one in family if one.is_running()) / 2**20


async def compare(ways: list[Way], args: argparse.Namespace) -> None:
    for way in ways:
        await learn(way)
        await turn(way, args.clients, 5)
        way.seconds, way.rates = [], []
    for _ in range(args.turns):
        for way in ways:
            await turn(way, args.clients, args.seconds)
    base = float(np.median(ways[0].rates))
    for way in ways:
        half, last = np.percentile(way.seconds, [50, 99])
        rate = float(np.median(way.rates))
        print(
            f"  {way.name:12} {rate:7.1f} images/s ({rate / base:.2f}), p50 {half * 1e3:6.0f} ms, p99"
            f" {last * 1e3:6.0f} ms; {len(way.seconds)} answers, {way.lost} lost, {way.other} unlike the answer alone"
        )


async def last(way: Way, args: argparse.Namespace) -> None:
    """Send many requests and print the memory meanwhile."""
    for done in range(0, args.requests, max(args.requests // 10, 1)):
        print(f"  after {done:6} requests {memory(way):7.0f} MiB", flush=True)
        await turn(way, args.clients, float("inf"), max(args.requests // 10, 1))
    print(f"  after {args.requests:6} requests {memory(way):7.0f} MiB; {way.lost} lost")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished make quickstart")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=30, help="length of a turn")
    parser.add_argument("--turns", type=int, default=4, help="turns of each server")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument(
        "--requests", type=int, default=0, help="requests to omniq serve afterwards, to measure its memory"
    )
    parser.add_argument("--port", type=int, default=8765)
    args = parser.parse_args()
    images, model = images_of(args.run, args.images)[: args.images], last_model(args.run)
    ways: list[Way] = []
    try:
        ways += [plain(model, images)]
        ways += [ours(model, images, args.port)]
        print(f"tiny model, {args.clients} clients, {args.turns} turns of {args.seconds:g} s each")
        asyncio.run(compare(ways, args))
        if args.requests:
            asyncio.run(last(ways[1], args))
    finally:
        for way in ways:
            if way.name == "vllm serve":
                os.killpg(way.process.pid, 15)
            way.process.terminate()
            way.process.wait()


if __name__ == "__main__":
    main()
