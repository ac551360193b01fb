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


def write_sheet(
    path: Path,
    text: str,
    images: Sequence[Path],
    scores: Mapping[str, Sequence[float | None]],
    choice: Choice,
) -> Path:
    """Write a PNG; the best image has a frame and its place in the ranking, as all others have theirs.

    Args:
        path: of the sheet; its folder is made.
        text: what the images were made from.
        images: files, in the order of their numbers.
        scores: by task, one an image.
        choice: among them.
    """
    columns = min(_COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    figure, grid = plt.subplots(rows, columns, figsize=(2.1 * columns, 2.5 * rows + 0.6), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    places = {image: place for place, image in enumerate(choice.ranking, 1)}
    for number, (axes, file) in enumerate(zip(grid.flat, images, strict=False)):
        with Image.open(file) as image:
            image.thumbnail((_SIDE, _SIDE))
            axes.imshow(image)
        said = ", ".join(f"{task} {_said(values[number])}" for task, values in scores.items())
        axes.set_title(f"#{places.get(number, '-')}  {textwrap.fill(said, 26)}", fontsize=7, parse_math=False)
        if number == choice.best:
            axes.add_patch(plt.Rectangle((0, 0), 1, 1, fill=False, color=_BLUE, linewidth=5, transform=axes.transAxes))
    title = textwrap.shorten(" ".join(text.split()), 120 * columns // _COLUMNS + 20)
    figure.suptitle(textwrap.fill(title, 18 * columns), fontsize=9, parse_math=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _said(score: float | None) -> str:
    return "none" if score is None else f"{score:.2f}"
