"""Read single images of a prepared file in any order."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from omniq_verl.data.images import BadImage


@dataclass(frozen=True)
class StoredImage:
    """A reference to the one image of a row."""

    file: Path
    group: int
    number: int
    """The row's position within its row group."""

    @property
    def name(self) -> str:
        """Name of the image in messages."""
        return f"{self.file.name}, row group {self.group}, row {self.number}"

    def read(self) -> bytes:
        """Return the image's bytes.

        Raises:
            BadImage: the row has no image, or the file cannot be read.
        """
        try:
            (image,) = _images(self.file, self.file.stat().st_mtime_ns, self.group)[self.number].as_py()
        except (OSError, pa.ArrowException, ValueError) as error:
            raise BadImage(f"the row's image cannot be read ({error})") from None
        if not image["bytes"]:
            raise BadImage("the row's image has no bytes")
        return image["bytes"]


# A row group written by data_prep has 4 MB of images. The time is in the key so that a rewritten file is read again.
@lru_cache(maxsize=8)
def _images(file: Path, changed: int, group: int) -> pa.ChunkedArray:
    return _opened(file, changed).read_row_group(group, ["images"])["images"]


@lru_cache(maxsize=8)
def _opened(file: Path, _changed: int) -> pq.ParquetFile:
    return pq.ParquetFile(file, memory_map=True)
