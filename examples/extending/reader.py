"""A custom reader for a label format that no script of ``data_prep/`` reads.

Here each image has a text file next to it, ``photo.png`` and ``photo.score``, and its folder is its split:

    PYTHONPATH=examples/extending python data_prep/manifest.py --reader reader:read --task task:SHARPNESS \
        --root photos --out data/sharpness --data-source sharpness --low 0 --high 100
"""

from collections.abc import Iterator

from omniq_verl.preparation.build import Item
from omniq_verl.preparation.cli import Request


def read(request: Request) -> Iterator[Item]:
    """One item per label file: the image's name, its split, and its score in the label's own unit."""
    for path in sorted(request.index.root.rglob("*.score")):
        image = path.with_suffix(".png").relative_to(request.index.root)
        split = image.parts[0]  # train, val or test
        try:
            yield Item(str(image), split, float(path.read_text()))
        except ValueError:
            yield Item(str(image), split, fault=f"{path.name} does not contain a number")
