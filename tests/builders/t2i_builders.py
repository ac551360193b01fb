"""Stand-ins for a text-to-image pipeline, and for models that rate its images and write its prompts."""

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from evaluation_builders import Rater
from PIL import Image

from omniq_verl.generation.request import Answer, Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.t2i.generator import GeneratorSpec
from omniq_verl.t2i.ranking import Scores

PAINTER, CRITIC, WRITER = "t2i_builders:Painter", "t2i_builders:Critic", "t2i_builders:Writer"
STOPPING = "t2i_builders:StoppingPainter"
HOSTILE = (
    "no prompt at all",
    "<prompt>never closed",
    "<prompt> \ud800\n\x00 </prompt>",
    "<think>a <prompt>thought</prompt> without an end",
    f"<prompt>{'so long ' * 5000}</prompt>",
    "</prompt>" * 50 + "<prompt>" * 50,
)


def value_of(text: str, seed: int) -> int:
    """The grey of an image, 0 to 255."""
    return hashlib.blake2b(f"{text}/{seed}".encode(), digest_size=1).digest()[0]


class Painter:
    """Draws greys. Its log, the file ``drawn.log`` of the working directory, has a line for each image.

    ``spec.dtype`` "float16" makes it slow, so that there is something to be killed.
    """

    def __init__(self, spec: GeneratorSpec):
        self.pause = 0.01 if spec.dtype == "float16" else 0.0

    def draw(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        time.sleep(self.pause * len(seeds))
        drawn = list(zip(texts, seeds, strict=True))
        with open(Path("drawn.log"), "a") as log:
            log.writelines(f"{text}/{seed}\n" for text, seed in drawn)
        return [Image.new("RGB", (16, 16), (value_of(text, seed),) * 3) for text, seed in drawn]


class StoppingPainter(Painter):
    """Fails when it has drawn anything, as long as the file ``stop`` is in the working directory."""

    def draw(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        if Path("stop").exists() and Path("drawn.log").exists():
            raise RuntimeError("out of memory")
        return super().draw(texts, seeds)


class Writer:
    """Adds a plus to the prompt that was drawn last. Its log, ``written.log``, has a line for each question.

    ``EngineSpec.model`` "hostile": all that ``HOSTILE`` has, round by round; "rejects": questions about a fox; "slow".
    """

    def __init__(self, spec: EngineSpec):
        self.script = spec.model

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        asked = [request.messages[0]["content"] for request in requests]
        if self.script == "rejects" and "fox" in "".join(asked):
            raise ValueError("no foxes")
        if self.script == "slow":
            time.sleep(0.01 * len(requests))
        with open(Path("written.log"), "a") as log:
            log.writelines(f"{request.key}\n" for request in requests)
        return [[Answer(self._text(text, request.key))] for text, request in zip(asked, requests, strict=True)]

    def _text(self, question: str, key: str) -> str:
        last = re.search(r"drawn last:\n(.*)\n", question).group(1)
        if self.script == "hostile":
            return HOSTILE[int(key.split("/")[1]) % len(HOSTILE)]
        return f"Here it is: <prompt>{last}+</prompt>"


class Critic:
    """Rates images by their brightness, and writes prompts where it is shown none: one model for both."""

    def __init__(self, spec: EngineSpec):
        self._rater, self._writer = Rater(spec), Writer(spec)

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        engine = self._rater if requests[0].images else self._writer
        return engine.answer(requests, sampling)


def hundredfold(scores: Scores) -> list[float | None]:
    """A selector whose values are beyond the scale of the scores."""
    return [None if score is None else 100 * score for score in scores["alignment"]]


def killed_five_times(words: Sequence[str], folder: Path, every: int, pause: float = 0.0) -> dict[str, str]:
    """Start a command, kill it after every so many images, ``pause`` later each time, and let it end at last.

    Returns:
        The environment it had.
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    log = folder / "drawn.log"
    for kill in range(5):
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and len(log.read_text().splitlines()) > 3 + every * kill:
                break
            time.sleep(0.002)
        time.sleep(pause * kill)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
    return environment


def stored_keys(store: Path) -> list[str]:
    """The keys of all whole lines of a store, in their order."""
    lines = [line for part in store.glob("*.jsonl") for line in part.read_bytes().splitlines(True)]
    return [json.loads(line)["key"] for line in lines if line.endswith(b"\n")]
