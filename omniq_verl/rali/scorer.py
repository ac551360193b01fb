"""``RaliScorer``: images in, scores out, by the same call as ``omniq_verl.Scorer``."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from omniq_verl.data.images import BadImage
from omniq_verl.generation.request import ERROR
from omniq_verl.rali.checkpoint import DTYPES, RaliModel, load_rali, weights_digest
from omniq_verl.scoring.image_inputs import Images, OneImage, all_or_one, decode_source, listed, name_of
from omniq_verl.scoring.scorer import BAD_IMAGE, Score
from omniq_verl.tasks import Scale, scale_of

_READERS = 16
"""Threads that decode and resize, at most; Pillow lets others run meanwhile."""


class RaliScorer:
    """A fitted RALI, ready for images.

    An image's score does not depend on what it is scored beside, but for the last bits of a sum. It has no reasoning
    and no answer: RALI writes none.

    Args:
        folder: of ``omniq rali fit``.
        device: None: a GPU where there is one.
        batch: images the encoder is given at a time; the next are read meanwhile.
        dtype: of the encoder: float32, or bfloat16, which moves scores by some hundredths.
        compile: compile the model at the first batch, which takes a minute or so.
        allow_urls: fetch images by http and https.

    Raises:
        ValueError: no such dtype, a batch below one.
        BadRaliFile: the folder holds no RALI, or a broken one.
    """

    def __init__(
        self,
        folder: str | Path,
        device: str | torch.device | None = None,
        batch: int = 16,
        dtype: str = "float32",
        compile: bool = False,
        allow_urls: bool = False,
    ):
        if dtype not in DTYPES or batch < 1:
            raise ValueError(f"dtype is one of {', '.join(DTYPES)}, batch from 1; got {dtype!r} and {batch}")
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        folder = Path(folder).expanduser()
        model, self.about = load_rali(folder, DTYPES[dtype])
        self.model: RaliModel = model.to(self._device)
        self._run = torch.compile(self.model, dynamic=True) if compile else self.model
        self._preprocess = model.encoder.preprocessing
        self._folder, self._batch, self._allow_urls = folder, batch, allow_urls

    @cached_property
    def digest(self) -> str:
        """Of the files of this RALI: another one, another model."""
        return weights_digest(self._folder)

    @overload
    def score(
        self,
        images: OneImage,
        task: str | None = None,
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        scale: Scale | str | None = None,
    ) -> Score: ...

    @overload
    def score(
        self,
        images: Images,
        task: str | None = None,
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        scale: Scale | str | None = None,
    ) -> list[Score]: ...

    @overload
    def score(self, images: Any, task: str | Sequence[str] | None = None, **settings: Any) -> Any: ...

    def score(
        self,
        images: Any,
        task: str | Sequence[str] | None = None,
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        scale: Scale | str | None = None,
    ) -> Any:
        """Scores of images, in their order.

        Args:
            images: as ``Scorer.score`` takes them. What is no image, or rejected by the image rules of training, gets
                the status "bad_image".
            task: the one it was fitted for, which None stands for.
            prompt: as of ``Scorer``, but nothing is asked: it is not looked at.
            samples: 1, as there is one answer.
            temperature: of sampled answers, of which there are none.
            scale: to have scores on another than that of the labels it was fitted to: a straight line between both.

        Returns:
            A ``Score`` for each image; of a list of tasks a dict by task; of a single image, its own. A score may lie
            beyond the ends of the scale by a little, as it is not cut off; its level is that of the nearest end then.

        Raises:
            ValueError: another task, or more samples than one, or no such scale.
            TypeError: ``images`` is neither one image nor a list of images.
        """
        return all_or_one(images, lambda all_: self.batches(all_, task, prompt, samples, temperature, scale))

    def batches(
        self,
        images: Iterable[Any],
        task: str | Sequence[str] | None = None,
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        scale: Scale | str | None = None,
    ) -> Iterator[list[Any]]:
        """As ``score``, a list at a time, as soon as each batch is done."""
        mine = self.about.task
        if task not in (None, mine) and list(task) != [mine]:
            raise ValueError(f"this RALI was fitted for the task {mine!r}, not {task!r}")
        if samples != 1:
            raise ValueError(f"RALI has one answer, got samples={samples}")
        images, asked = listed(images), scale_of(scale) or self.about.scale
        for first, loaded in self._loaded(images):
            names = [name_of(images[first + number], first + number) for number in range(len(loaded))]
            scores = self._score(names, loaded, asked)
            yield scores if task is None or isinstance(task, str) else [{mine: score} for score in scores]

    def _loaded(self, images: Sequence[Any]) -> Iterator[tuple[int, list[np.ndarray | BadImage]]]:
        """Batches of pixels; the next is read while this one is scored."""
        with ThreadPoolExecutor(min(_READERS, (os.cpu_count() or 1) + 1)) as pool:
            ahead: list[Future] = []
            for first in range(0, len(images), self._batch):
                now = ahead or self._start(pool, images, first)
                ahead = self._start(pool, images, first + self._batch)
                yield first, [future.result() for future in now]

    def _start(self, pool: ThreadPoolExecutor, images: Sequence[Any], first: int) -> list[Future]:
        return [pool.submit(self._load, source) for source in images[first : first + self._batch]]

    def _load(self, source: Any) -> np.ndarray | BadImage:
        try:
            return self._preprocess.pixels(decode_source(source, self._allow_urls))
        except BadImage as error:
            return error

    def _score(self, names: Sequence[str], loaded: Sequence[np.ndarray | BadImage], scale: Scale) -> list[Score]:
        good = [pixels for pixels in loaded if isinstance(pixels, np.ndarray)]
        scores = iter(self._forward(np.stack(good)) if good else ())
        return [
            Score(name, self.about.task, BAD_IMAGE, error=str(one))
            if isinstance(one, BadImage)
            else self._said(name, next(scores), scale)
            for name, one in zip(names, loaded, strict=True)
        ]

    def _forward(self, pixels_BHWC: np.ndarray) -> list[float]:
        with torch.inference_mode():
            return self._run(torch.from_numpy(pixels_BHWC).to(self._device)).tolist()

    def on_scale(self, value: float, scale: Scale) -> float:
        """A score on another scale than that of the labels: a straight line between both."""
        own = self.about.scale
        if scale == own:
            return value
        return scale.low + (value - own.low) / (own.high - own.low) * (scale.high - scale.low)

    def _said(self, name: str, value: float, scale: Scale) -> Score:
        if not math.isfinite(value):
            return Score(name, self.about.task, ERROR, answers=1, error="the score is no finite number (overflow)")
        value = self.on_scale(value, scale)
        level = scale.level(min(max(value, scale.low), scale.high))
        return Score(name, self.about.task, "ok", value, level, parsed=1, answers=1)
