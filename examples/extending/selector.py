"""A custom selector for text-to-image: picks the image whose worst task is best.

    PYTHONPATH=examples/extending omniq t2i best-of-n prompts.txt --selector selector:worst_task \
        --weight alignment=1 --weight aesthetic=1 --model ... --out runs/best
"""

from collections.abc import Mapping, Sequence


def worst_task(scores: Mapping[str, Sequence[float | None]]) -> list[float | None]:
    """One number per image, the highest for the best; None: never chosen.

    Args:
        scores: by task, one per image; None if an answer could not be parsed.
    """
    images = zip(*scores.values(), strict=True)
    return [None if None in image else min(image) for image in images]
