"""A stand-in for a text-to-image pipeline, where the test is of what stands around it: greys by text and seed."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from omniq_verl.t2i.generator import GeneratorSpec

PAINTER = "t2i_builders:Painter"


def value_of(text: str, seed: int) -> int:
    """The grey of an image, 0 to 255."""
    return hashlib.blake2b(f"{text}/{seed}".encode(), digest_size=1).digest()[0]


class Painter:
    """Draws greys. Its log, the file ``drawn.log`` of the working directory, has a line for each image.

    ``spec.dtype`` "float16" makes it slow, so that there is something to be killed.
    """

    def __init__(self, spec: GeneratorSpec):
        self.pause = 0.01 if spec.dtype == "float16" else 0.0

    def draw(self, text: str, seeds: Sequence[int]) -> list[Image.Image]:
        time.sleep(self.pause * len(seeds))
        with open(Path("drawn.log"), "a") as log:
            log.writelines(f"{text}/{seed}\n" for seed in seeds)
        return [Image.new("RGB", (16, 16), (value_of(text, seed),) * 3) for seed in seeds]
