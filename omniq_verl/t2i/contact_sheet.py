"""Contact sheets: all images of a text with their scores; the best one is framed."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from omniq_verl.evaluation.plots import save_figure
from omniq_verl.t2i.ranking import Choice

_COLUMNS = 5
_BLUE = "#0072B2"  # Okabe-Ito palette
_SIDE = 320  # longest side of an image on the sheet, in pixels
_FOOT = 200  # maximum characters below an image
_CELL, _BOX, _HEAD, _CAPTION = 2.1, 1.85, 0.65, 0.42
"""Inches: a cell, the image in it, the header above all images, the scores above an image."""
_TEXT = {"va": "top", "parse_math": False}


def write_sheet(
    path: Path,
    text: str,
    images: Sequence[Path],
    captions: Sequence[str],
    best: int | None,
    below: Sequence[str] = (),
) -> Path:
    """Write a contact sheet as PNG, with a frame around the best image.

    Args:
        path: output file; its folder is created.
        text: what the images should show.
        images: files, by image number.
        captions: caption above each image.
        best: number of the best image; None: no frame.
        below: text below each image, truncated after some lines; empty: none.
    """
    columns = min(_COLUMNS, len(images))
    feet = [_wrapped(foot, _FOOT, 40) for foot in below] or [""] * len(images)
    height = 2.5 + 0.12 * max(foot.count("\n") + bool(foot) for foot in feet)
    size = _CELL * columns, _HEAD + height * math.ceil(len(images) / columns)
    figure = Figure(figsize=size)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(size[1], 0), autoscale_on=False)  # in inches
    axes.set_axis_off()  # shared by all images: separate axes for twenty images take a second to lay out
    axes.text(size[0] / 2, 0.1, _wrapped(text, 24 * columns + 20, 18 * columns), fontsize=9, **_TEXT, ha="center")
    for number, file in enumerate(images):
        row, column = divmod(number, columns)
        left, top = column * _CELL + (_CELL - _BOX) / 2, _HEAD + row * height
        axes.text(left, top, textwrap.fill(captions[number], 28), fontsize=7, **_TEXT)
        bottom = _place(axes, file, left, top + _CAPTION, number == best)
        axes.text(left, bottom + 0.06, feet[number], fontsize=6, **_TEXT)
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_figure(figure, path, dpi=110)


def _place(axes: Axes, file: Path, left: float, top: float, framed: bool) -> float:
    """Draw an image as large as its box allows; returns its bottom edge."""
    with Image.open(file) as image:
        image.thumbnail((_SIDE, _SIDE))
        scale = _BOX / max(image.size)
        width, height = (scale * side for side in image.size)
        axes.imshow(image, extent=(left, left + width, top + height, top), aspect="auto")
    if framed:
        axes.add_patch(Rectangle((left, top), width, height, fill=False, color=_BLUE, linewidth=5))
    return top + height


def score_captions(scores: Mapping[str, Sequence[float | None]], choice: Choice) -> list[str]:
    """Caption of each image: its rank and its scores by task."""
    ranks = {image: rank for rank, image in enumerate(choice.ranking, 1)}
    return [
        f"#{ranks.get(image, '-')}  "
        + ", ".join(f"{task} {_score_text(values[image])}" for task, values in scores.items())
        for image in range(len(choice.values))
    ]


def _wrapped(text: str, longest: int, width: int) -> str:
    """Wrap a text into lines; truncated by characters because some scripts have no spaces between words."""
    text = " ".join(text.split())
    return textwrap.fill(text if len(text) <= longest else f"{text[:longest]} ...", width)


def _score_text(score: float | None) -> str:
    return "none" if score is None else f"{score:.2f}"
