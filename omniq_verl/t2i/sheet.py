"""Contact sheets: all images of a text with their scores, the best one framed."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

from omniq_verl.t2i.selection import Choice

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from PIL import Image

_COLUMNS = 5
_BLUE = "#0072B2"  # of Okabe and Ito
_SIDE = 320  # pixels of an image on the sheet
_FOOT = 200  # letters below an image


def write_sheet(
    path: Path,
    text: str,
    images: Sequence[Path],
    said: Sequence[str],
    best: int | None,
    below: Sequence[str] = (),
) -> Path:
    """Write a PNG, the best image in a frame.

    Args:
        path: of the sheet; its folder is made.
        text: what the images should show.
        images: files, in the order of their numbers.
        said: above each.
        best: its number; None: no frame.
        below: likewise, or nothing; cut after some lines.
    """
    columns = min(_COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    feet = [_wrapped(foot, _FOOT, 40) for foot in below]
    height = 2.5 + 0.12 * max((foot.count("\n") + 1 for foot in feet), default=0)
    figure, grid = plt.subplots(rows, columns, figsize=(2.1 * columns, height * rows + 0.6), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for number, (axes, file) in enumerate(zip(grid.flat, images, strict=False)):
        with Image.open(file) as image:
            image.thumbnail((_SIDE, _SIDE))
            axes.imshow(image)
        axes.set_title(textwrap.fill(said[number], 28), fontsize=7, parse_math=False)
        if feet:
            axes.text(0, -0.04, feet[number], fontsize=6, va="top", transform=axes.transAxes, parse_math=False)
        if number == best:
            axes.add_patch(plt.Rectangle((0, 0), 1, 1, fill=False, color=_BLUE, linewidth=5, transform=axes.transAxes))
    figure.suptitle(_wrapped(text, 24 * columns + 20, 18 * columns), fontsize=9, parse_math=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def scores_said(scores: Mapping[str, Sequence[float | None]], choice: Choice) -> list[str]:
    """Of each image its place in the ranking, and its scores by task."""
    places = {image: place for place, image in enumerate(choice.ranking, 1)}
    return [
        f"#{places.get(image, '-')}  " + ", ".join(f"{task} {_said(values[image])}" for task, values in scores.items())
        for image in range(len(choice.values))
    ]


def _wrapped(text: str, longest: int, width: int) -> str:
    """In lines; cut by letters, as some scripts have no spaces between words."""
    text = " ".join(text.split())
    return textwrap.fill(text if len(text) <= longest else f"{text[:longest]} ...", width)


def _said(score: float | None) -> str:
    return "none" if score is None else f"{score:.2f}"
