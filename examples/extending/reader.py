"""A reader of your own: labels of a form that no script of ``data_prep/`` reads.

Here each image has a text file beside it, ``photo.png`` and ``photo.score``, and its folder names its split:

    PYTHONPATH=examples/extending python data_prep/manifest.py --reader reader:read --task task:SHARPNESS \
        --root photos --out data/sharpness --data-source sharpness --low 0 --high 100
"""

from collections.abc import Iterator

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import Request


def read(request: Request) -> Iterator[Item]:
    """An item for each label file: the name of its image, its split, and its score in the label's own unit."""
    for path in sorted(request.index.root.rglob("*.score")):
        image = path.with_suffix(".png").relative_to(request.index.root)
        split = image.parts[0]  # train, val or test
        try:
            yield Item(str(image), split, float(path.read_text()))
        except ValueError:
            yield Item(str(image), split, fault=f"{path.name} holds no number")
