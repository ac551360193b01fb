"""Label files of pyiqa, which many download beside its archives of the data sets: one CSV for each of these."""

from collections.abc import Iterator
from pathlib import Path

from omniq_verl.preparation.label_tables import LabelFileError, read_csv


def is_pyiqa(path: Path) -> bool:
    """Whether a label file has the name of one of pyiqa's."""
    return path.name.lower().startswith("meta_info")


def read_pyiqa(path: Path, references: bool = False) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Image, score and whole row of pyiqa's label file, which begins with these two.

    Columns are named differently from one data set and one version to the next, so pyiqa itself goes by their place.

    Args:
        path: of the file.
        references: whether the name of the reference image precedes them.

    Raises:
        LabelFileError: there are not as many columns.
    """
    for row in read_csv(path, []):
        cells = list(row.values())[int(references) :]
        if len(cells) < 2:
            raise LabelFileError(f"{path}: it has {len(row)} columns, too few. Fix: download it again from its owners")
        yield cells[0], cells[1], row
