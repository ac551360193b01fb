"""Read the label files of pyiqa, which are often downloaded with its archives: one CSV per data set."""

from collections.abc import Iterator
from pathlib import Path

from omniq_verl.preparation.label_tables import LabelFileError, read_csv


def is_pyiqa(path: Path) -> bool:
    """Return whether a label file has one of pyiqa's names."""
    return path.name.lower().startswith("meta_info")


def read_pyiqa(path: Path, references: bool = False) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield image, score and the whole row for each row of a pyiqa label file. Its first columns are image and score.

    Column names differ between data sets and versions, so pyiqa itself uses positions.

    Args:
        path: the label file.
        references: whether the name of the reference image comes first.

    Raises:
        LabelFileError: the file has too few columns.
    """
    for row in read_csv(path, []):
        cells = list(row.values())[int(references) :]
        if len(cells) < 2:
            raise LabelFileError(f"{path}: it has {len(row)} columns, too few. Fix: download it again from its owners")
        yield cells[0], cells[1], row
