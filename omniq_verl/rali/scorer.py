"""``RaliScorer``: images in, scores out, with the same calls as ``omniq_verl.Scorer``."""

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
"""Maximum number of threads that decode and resize; Pillow releases the GIL."""


class RaliScorer:
    """A fitted RALI model, ready to score images.

    An image's score does not depend on the rest of its batch, except for the last bits of floating-point sums. It has
    no reasoning and no answer, because RALI writes no text.

    Args:
        folder: written by ``omniq rali fit``.
        device: None: a GPU if there is one.
        batch: images per batch of the encoder; the next batch is read meanwhile.
        dtype: data type of the encoder: float32, or bfloat16, which changes scores by a few hundredths.
        compile: compile the model on the first batch, which takes about a minute.
        allow_urls: fetch images over http and https.

    Raises:
        ValueError: unknown dtype, or batch below 1.
        BadRaliFile: the folder holds no RALI model, or a broken one.
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
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, batch >= 1; got {dtype!r} and {batch}")
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        folder = Path(folder).expanduser()
        model, self.about = load_rali(folder, DTYPES[dtype])
        self.model: RaliModel = model.to(self._device)
        self._run = torch.compile(self.model, dynamic=True) if compile else self.model
        self._preprocess = model.encoder.preprocessing
        self._folder, self._batch, self._allow_urls = folder, batch, allow_urls

    @cached_property
    def digest(self) -> str:
        """Checksum of the model files; it changes whenever the model changes."""
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
    def score(
        self,
        images: Any,
        task: str | Sequence[str] | None = None,
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        scale: Scale | str | None = None,
    ) -> Any: ...

    def score(
        self,
        images: Any,
        task: str | Sequence[str] | None = None,
        prompt: str | Sequence[str] | None = None,
        samples: int = 1,
        temperature: float = 1.0,
        scale: Scale | str | None = None,
    ) -> Any:
        """Score images, in order.

        Args:
            images: anything ``Scorer.score`` accepts. Inputs that are not images, or that training would reject, get
                the status "bad_image".
            task: the task it was fitted for; None means the same.
            prompt: ignored; accepted for compatibility with ``Scorer``.
            samples: must be 1, because RALI has only one answer.
            temperature: ignored; accepted for compatibility with ``Scorer``.
            scale: scale for the scores, mapped linearly from the scale of the labels it was fitted to.

        Returns:
            A ``Score`` for each image; for a list of tasks a dict by task; for a single image only its own. A score is
            not clipped and may be slightly beyond the scale; its level is then that of the nearest end.

        Raises:
            ValueError: another task, more than one sample, or an unknown scale.
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
        """Like ``score``, but yields a list per batch, as soon as each batch is done."""
        mine = self.about.task
        if task not in (None, mine) and list(task) != [mine]:
            raise ValueError(f"this RALI was fitted for the task {mine!r}, not {task!r}")
        if samples != 1:
            raise ValueError(f"RALI has only one answer per image, got samples={samples}")
        images, asked = listed(images), scale_of(scale) or self.about.scale
        for first, loaded in self._loaded(images):
            names = [name_of(images[first + number], first + number) for number in range(len(loaded))]
            scores = self._score(names, loaded, asked)
            yield scores if task is None or isinstance(task, str) else [{mine: score} for score in scores]

    def _loaded(self, images: Sequence[Any]) -> Iterator[tuple[int, list[np.ndarray | BadImage]]]:
        """Batches of pixels; the next batch is read while this one is scored."""
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
            else self._to_score(name, next(scores), scale)
            for name, one in zip(names, loaded, strict=True)
        ]

    def _forward(self, pixels_BHWC: np.ndarray) -> list[float]:
        with torch.inference_mode():
            return self._run(torch.from_numpy(pixels_BHWC).to(self._device)).tolist()

    def on_scale(self, value: float, scale: Scale) -> float:
        """Map a score linearly from the scale of the labels to another scale."""
        own = self.about.scale
        if scale == own:
            return value
        return scale.low + (value - own.low) / (own.high - own.low) * (scale.high - scale.low)

    def _to_score(self, name: str, value: float, scale: Scale) -> Score:
        if not math.isfinite(value):
            return Score(name, self.about.task, ERROR, answers=1, error="the score is not a finite number (overflow)")
        value = self.on_scale(value, scale)
        level = scale.level(min(max(value, scale.low), scale.high))
        return Score(name, self.about.task, "ok", value, level, parsed=1, answers=1)
