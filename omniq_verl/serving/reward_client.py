"""Use a served reward model as the reward of verl-omni or of any training loop over images and prompts."""

import asyncio
import math
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
    """Rewards of images in [0, 1]: the score's position on its scale.

    Args:
        url: address of the server.
        task: ``alignment``, ``aesthetic``, ``technical`` or another task with a score.
        unread: the reward, >= 0, of an image without a score (the model's answer cannot be parsed, or the file is
            broken); None: raise an error, which stops training.
        key: API key, if the server requires one.
        scale: scale of the served model's scores (``omniq serve --scale``), an object or a name such as "0-5"; None:
            the task's own.
        value_range: the values of black and white in float arrays and tensors. None: 0 and 1 in a tensor; pass (-1, 1)
            for images straight out of a VAE. The range is never guessed from the values of an image.
        settings: further arguments of ``Client``.

    Raises:
        ValueError: the task is unknown or gives no score, or ``unread``, ``scale`` or ``value_range`` is invalid.
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
            raise ValueError(f"task {task!r} gives no score. Fix: use one that does, such as alignment or technical")
        if unread is not None and not 0 <= unread < math.inf:
            raise ValueError(f"unread is {unread}, which would be a reward. Fix: use a number from 0, or None to stop")
        self.__name__ = "omniq_" + re.sub(r"\W", "_", task)  # trainers log the reward by this name
        self._client, self._task, self._unread = Client(url, key, **settings), task, unread
        self._scale = scale_of(scale) or asked.scale
        self._range = check_range(value_range)

    def __call__(self, images: Iterable[Any], prompts: Sequence[str] | None = None, **_: Any) -> list[float]:
        """Rewards of images, in order.

        Args:
            images: PIL images, file contents as bytes, data URLs, paths, or arrays and tensors (shapes and values: see
                ``omniq_verl.data.arrays``); also a batch of them, ``[N, C, H, W]`` or ``[N, H, W, C]``.
            prompts: the texts the images were generated from.

        Raises:
            TypeError: an item is not an image, for example a text that a language model wrote.
            ValueError: an array or tensor is not an image: wrong shape or dtype, values out of range, or NaN.
            ServerError: the server rejects the request or cannot be reached.
            RuntimeError: an image has no score and ``unread`` is None.
        """
        return [self.reward(score) for score in self.scores(images, prompts)]

    def scores(self, images: Iterable[Any], prompts: Sequence[str] | None) -> list[Score]:
        """The scores from which the rewards are computed."""
        checked = [_checked(number, image, self._range) for number, image in enumerate(listed(images))]
        return self._client.score(checked, self._task, prompts)

    def reward(self, score: Score) -> float:
        """The reward of one score."""
        low, high = self._scale.low, self._scale.high
        if score.score is not None:
            return min(max((score.score - low) / (high - low), 0.0), 1.0)
        if self._unread is None:
            raise RuntimeError(f"{score.image} has no score: {score.error or score.status}")
        return self._unread


def _checked(number: int, image: Any, value_range: ValueRange | None) -> Any:
    """Check an image before it is sent; otherwise a wrong call would return a reward of zero for every image."""
    known = is_one(image) or is_numbers(image)
    if isinstance(image, str):
        known = is_data_url(image) or os.path.isfile(image)
    if not known:
        raise TypeError(f"images[{number}] is {image!r:.60}, not a PIL image, array, tensor, bytes or path of a file")
    try:
        return lossless(image, value_range)
    except BadImage as error:
        raise ValueError(f"images[{number}]: {error}") from None


def lossless(image: Any, value_range: ValueRange | None = None) -> Any:
    """Convert arrays and tensors to a PIL image (see ``omniq_verl.data.arrays``); pass anything else through.

    Raises:
        BadImage: an array or tensor is not an image, or has values out of range.
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
    """verl-omni's custom reward function: scores one image in [0, 1] and reports whether the answer could be parsed.

    It replaces verl-omni's own ``http_scorer_client``, which sends JPEG and thereby changes the quality to be scored.

    Args:
        solution_image: uint8 tensor ``[3, H, W]``, or another image that ``ServerReward`` accepts.
        ground_truth: the text the image was generated from.
        server_url: address of ``omniq serve``.
        task: a task with a score.
        unread: see ``ServerReward``.
        key: API key.
        scale: the value of ``omniq serve --scale``, such as ``"0-5"``; None: the task's own scale.
        value_range: the values of black and white in a float tensor; None: 0 and 1.

    Raises:
        TypeError, ValueError: ``solution_image`` is not an image; see ``ServerReward``.
    """
    reward = _reward(server_url, task, unread, key, scale, None if value_range is None else tuple(value_range))
    (score,) = await asyncio.to_thread(reward.scores, [solution_image], [ground_truth])
    return {"score": reward.reward(score), "omniq_parsed": float(score.ok)}


@lru_cache
def _reward(
    url: str, task: str, unread: float | None, key: str | None, scale: str | None, value_range: ValueRange | None
) -> ServerReward:
    return ServerReward(url, task, unread, key, scale, value_range)
