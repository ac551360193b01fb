"""A served reward model as the reward of a training: of verl-omni, or of any loop over images and prompts."""

import asyncio
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from omniq_verl.scoring.scorer import Score
from omniq_verl.serving.client import Client
from omniq_verl.tasks import IMAGE_TASKS, Scale, scale_of


class ServerReward:
    """Rewards of images in [0, 1]: where on its scale a score lies.

    Args:
        url: of the server.
        task: ``alignment``, ``aesthetic``, ``technical`` or another with a score.
        unread: the reward of an image that has no score (the model's answer cannot be read, or the file is broken),
            from 0; None: training stops with the reason.
        key: API key, where the server asks for one.
        scale: on which the server's model scores (``omniq serve --scale``); None: the task's own.
        settings: others of ``Client``.

    Raises:
        ValueError: the task is unknown, or gives no score.
    """

    def __init__(
        self,
        url: str,
        task: str = "alignment",
        unread: float | None = 0.0,
        key: str | None = None,
        scale: Scale | None = None,
        **settings: Any,
    ):
        if task not in IMAGE_TASKS or IMAGE_TASKS[task].scale is None:
            raise ValueError(f"task {task!r}: one with a score, such as alignment, aesthetic or technical")
        self.__name__ = f"omniq_{task}"  # by which trainers log it
        self._client, self._task, self._unread = Client(url, key, **settings), task, unread
        self._scale = scale or IMAGE_TASKS[task].scale

    def __call__(self, images: Sequence[Any], prompts: Sequence[str] | None = None, **_: Any) -> list[float]:
        """Rewards of images, in their order.

        Args:
            images: PIL images, arrays, tensors, bytes of files, or paths.
            prompts: the texts they were made from.

        Raises:
            TypeError: one is none of these, as a text that a language model wrote.
            ServerError: the server refuses, or cannot be reached.
            RuntimeError: an image has no score, and ``unread`` is None.
        """
        return [self.reward(score) for score in self.scores(images, prompts)]

    def scores(self, images: Sequence[Any], prompts: Sequence[str] | None) -> list[Score]:
        """What the rewards are made of."""
        images = list(images)
        for number, image in enumerate(images):
            _refuse_others(number, image)
        return self._client.score([lossless(image) for image in images], self._task, prompts)

    def reward(self, score: Score) -> float:
        """Of one score."""
        low, high = self._scale.low, self._scale.high
        if score.score is not None:
            return min(max((score.score - low) / (high - low), 0.0), 1.0)
        if self._unread is None:
            raise RuntimeError(f"{score.image} has no score: {score.why or score.status}")
        return self._unread


def _refuse_others(number: int, image: Any) -> None:
    """A wrong call would else be a reward of nothing but zeros."""
    known = isinstance(image, (bytes, Path, Image.Image, np.ndarray)) or hasattr(image, "permute")
    if not (known or (isinstance(image, str) and os.path.isfile(image))):
        said = f"{image!r:.60}"
        raise TypeError(f"images[{number}] is {said}: no PIL image, array, tensor, bytes or path of a file")


def lossless(image: Any) -> Any:
    """An image as the client takes it; a tensor ``[3, H, W]`` or ``[1, 3, H, W]`` of uint8, or of floats in [0, 1],
    becomes a PIL image."""
    if not hasattr(image, "permute"):
        return image
    tensor = image[0] if image.ndim == 4 else image
    if tensor.is_floating_point():
        tensor = (tensor.clamp(0, 1) * 255).round()
    return Image.fromarray(np.ascontiguousarray(tensor.permute(1, 2, 0).cpu().numpy().astype(np.uint8)))


async def compute_score(
    solution_image: Any,
    ground_truth: str,
    server_url: str,
    task: str = "alignment",
    unread: float | None = 0.0,
    key: str | None = None,
    scale: str | None = None,
    **_: Any,
) -> dict[str, float]:
    """verl-omni's custom reward function: one image, its score in [0, 1], and whether the answer could be read.

    It stands in for verl-omni's own ``http_scorer_client``, which sends JPEG and so changes the quality it asks about.

    Args:
        solution_image: tensor ``[3, H, W]`` of uint8.
        ground_truth: the text it was made from.
        server_url: of ``omniq serve``.
        task: one with a score.
        unread: see ``ServerReward``.
        key: API key.
        scale: what ``omniq serve --scale`` was given, such as ``"0-5"``; None: the task's own.
    """
    reward = _reward(server_url, task, unread, key, scale)
    (score,) = await asyncio.to_thread(reward.scores, [solution_image], [ground_truth])
    return {"score": reward.reward(score), "omniq_parsed": float(score.ok)}


@lru_cache
def _reward(url: str, task: str, unread: float | None, key: str | None, scale: str | None) -> ServerReward:
    return ServerReward(url, task, unread, key, scale_of(scale))
