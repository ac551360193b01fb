"""A served reward model as the reward of a training: of verl-omni, or of any loop over images and prompts."""

import asyncio
import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from omniq_verl.data.arrays import ValueRange, check_range, image_from, is_numbers
from omniq_verl.data.base64_text import is_data_url
from omniq_verl.data.images import BadImage
from omniq_verl.scoring.image_inputs import is_one, listed
from omniq_verl.scoring.scorer import Score
from omniq_verl.serving.client import Client
from omniq_verl.tasks import Scale, image_task, scale_of


class ServerReward:
    """Rewards of images in [0, 1]: where on its scale a score lies.

    Args:
        url: of the server.
        task: ``alignment``, ``aesthetic``, ``technical`` or another with a score.
        unread: the reward of an image that has no score (the model's answer cannot be read, or the file is broken),
            from 0; None: training stops with the reason.
        key: API key, where the server asks for one.
        scale: on which the server's model scores (``omniq serve --scale``), also by its name, such as "0-5"; None: the
            task's own.
        value_range: the floats that are black and white in arrays and tensors. None: 0 and 1 in a tensor; state (-1, 1)
            for what comes straight out of a VAE. It is never guessed from the values of an image.
        settings: others of ``Client``.

    Raises:
        ValueError: the task is unknown, or gives no score; there is no such scale or range.
    """

    def __init__(
        self,
        url: str,
        task: str = "alignment",
        unread: float | None = 0.0,
        key: str | None = None,
        scale: Scale | str | None = None,
        value_range: ValueRange | None = None,
        **settings: Any,
    ):
        if (asked := image_task(task)).scale is None:
            raise ValueError(f"task {task!r}: one with a score, such as alignment, aesthetic or technical")
        self.__name__ = "omniq_" + re.sub(r"\W", "_", task)  # by which trainers log it
        self._client, self._task, self._unread = Client(url, key, **settings), task, unread
        self._scale = scale_of(scale) or asked.scale
        self._range = check_range(value_range)

    def __call__(self, images: Iterable[Any], prompts: Sequence[str] | None = None, **_: Any) -> list[float]:
        """Rewards of images, in their order.

        Args:
            images: PIL images, bytes of files, data URLs, paths, or arrays and tensors, whose shapes and values
                ``omniq_verl.data.arrays`` states; also a batch of them, ``[N, C, H, W]`` or ``[N, H, W, C]``.
            prompts: the texts they were made from.

        Raises:
            TypeError: one is none of these, as a text that a language model wrote.
            ValueError: an array or tensor holds no image: another shape or dtype, values outside of their range, NaN.
            ServerError: the server rejects, or cannot be reached.
            RuntimeError: an image has no score, and ``unread`` is None.
        """
        return [self.reward(score) for score in self.scores(images, prompts)]

    def scores(self, images: Iterable[Any], prompts: Sequence[str] | None) -> list[Score]:
        """What the rewards are made of."""
        checked = [_checked(number, image, self._range) for number, image in enumerate(listed(images))]
        return self._client.score(checked, self._task, prompts)

    def reward(self, score: Score) -> float:
        """Of one score."""
        low, high = self._scale.low, self._scale.high
        if score.score is not None:
            return min(max((score.score - low) / (high - low), 0.0), 1.0)
        if self._unread is None:
            raise RuntimeError(f"{score.image} has no score: {score.error or score.status}")
        return self._unread


def _checked(number: int, image: Any, value_range: ValueRange) -> Any:
    """An image as the client takes it. A wrong call would otherwise be a reward of nothing but zeros."""
    known = is_one(image) or is_numbers(image)
    if isinstance(image, str):
        known = is_data_url(image) or os.path.isfile(image)
    if not known:
        raise TypeError(f"images[{number}] is {image!r:.60}: no PIL image, array, tensor, bytes or path of a file")
    try:
        return lossless(image, value_range)
    except BadImage as error:
        raise ValueError(f"images[{number}]: {error}") from None


def lossless(image: Any, value_range: ValueRange | None = None) -> Any:
    """An image as the client takes it: an array or tensor becomes a PIL image, by ``omniq_verl.data.arrays``.

    Raises:
        BadImage: an array or tensor that holds no image, or values outside of their range.
    """
    return image_from(image, value_range) if is_numbers(image) else image


async def compute_score(
    solution_image: Any,
    ground_truth: str,
    server_url: str,
    task: str = "alignment",
    unread: float | None = 0.0,
    key: str | None = None,
    scale: str | None = None,
    value_range: ValueRange | None = None,
    **_: Any,
) -> dict[str, float]:
    """verl-omni's custom reward function: one image, its score in [0, 1], and whether the answer could be read.

    It stands in for verl-omni's own ``http_scorer_client``, which sends JPEG and so changes the quality it asks about.

    Args:
        solution_image: tensor ``[3, H, W]`` of uint8, or another image as ``ServerReward`` takes it.
        ground_truth: the text it was made from.
        server_url: of ``omniq serve``.
        task: one with a score.
        unread: see ``ServerReward``.
        key: API key.
        scale: what ``omniq serve --scale`` was given, such as ``"0-5"``; None: the task's own.
        value_range: the floats that are black and white in a tensor; None: 0 and 1.

    Raises:
        TypeError, ValueError: ``solution_image`` is no image, as ``ServerReward`` says.
    """
    reward = _reward(server_url, task, unread, key, scale, None if value_range is None else tuple(value_range))
    (score,) = await asyncio.to_thread(reward.scores, [solution_image], [ground_truth])
    return {"score": reward.reward(score), "omniq_parsed": float(score.ok)}


@lru_cache
def _reward(
    url: str, task: str, unread: float | None, key: str | None, scale: str | None, value_range: ValueRange | None
) -> ServerReward:
    return ServerReward(url, task, unread, key, scale, value_range)
