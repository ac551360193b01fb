"""User-defined readers: ``omniq data manifest --reader my_pkg.readers:function``.

The function gets a ``Request`` (the index of the files below --root, the task, --labels) and returns or yields an
``Item`` for each image.
"""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from omniq_verl.object_reference import BadReference, described, load_function
from omniq_verl.preparation.build import Item
from omniq_verl.preparation.label_tables import LabelFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from omniq_verl.preparation.cli import Request

EXPECTED = "function(request: omniq_verl.preparation.cli.Request) -> iterable of omniq_verl.preparation.build.Item"


def open_reader(name: str) -> "Callable[[Request], Iterator[Item]]":
    """Import the reader with that name. Its items are checked one at a time.

    Raises:
        LabelFileError: the reader cannot be imported, or has the wrong parameters.
    """
    try:
        function = load_function("--reader", name, EXPECTED, 1)
    except BadReference as error:
        raise LabelFileError(str(error)) from None
    return partial(_items, name, function)


def _items(name: str, function: "Callable[[Request], Iterator[Item]]", request: "Request") -> Iterator[Item]:
    number = 0
    try:
        for number, item in enumerate(function(request)):
            if not isinstance(item, Item):
                raise LabelFileError(
                    f"--reader {name}: item {number} is {item!r:.80}. "
                    "Fix: yield omniq_verl.preparation.build.Item objects"
                )
            yield item
    except (LabelFileError, OSError, GeneratorExit):
        raise
    except Exception as error:  # whatever the user's own function raises
        raise LabelFileError(f"--reader {name} fails at item {number}: {described(error)}") from error
