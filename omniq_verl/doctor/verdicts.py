"""Store the results of checking data files, so a restart need not read every image again.

A result is stored under a checksum of everything it depends on: the bytes of the parquet file, its path, the settings
of the check, this package's code, and the libraries that read parquet and images. Stored results are therefore never
out of date, and nothing has to be cleared after a change.

The store is ``$XDG_CACHE_HOME/omniq_verl/doctor`` (``~/.cache/omniq_verl/doctor``). The environment variable
``OMNIQ_DOCTOR_CACHE`` names another folder, or switches the store off with the value ``off``. Entries are written to a
temporary file and renamed, and they contain a checksum. So runs may share the store, and a damaged entry counts as
missing.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image
from xxhash import xxh3_128

VARIABLE = "OMNIQ_DOCTOR_CACHE"
_KEPT = 200
"""Maximum number of entries in the store; the least recently used ones are removed."""
_BLOCK = 2**22


def store_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder of the store; None if it is switched off or there is no home folder."""
    named = environment.get(VARIABLE, "").strip()
    if named.lower() in ("off", "0", "false", "no"):
        return None
    if named:
        return Path(named).expanduser()
    base = environment.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):  # the XDG specification says to ignore relative paths
        try:
            base = str(Path.home() / ".cache")
        except RuntimeError:
            return None
    return Path(base) / "omniq_verl" / "doctor"


def result_key(file: Path, settings: str) -> str:
    """Return a checksum of everything that the result of checking a file depends on.

    Args:
        file: the parquet file; it is read to its end.
        settings: everything else that the check depends on, as text.

    Raises:
        OSError: the file cannot be read.
    """
    digest = xxh3_128()
    for part in (str(file), settings, _code(), str(Image.MAX_IMAGE_PIXELS), version("pillow"), version("pyarrow")):
        digest.update(f"{len(part)}:{part}".encode(errors="surrogatepass"))
    block = memoryview(bytearray(_BLOCK))
    with open(file, "rb", buffering=0) as opened:
        while size := opened.readinto(block):
            digest.update(block[:size])
    return digest.hexdigest()


@cache
def _code() -> str:
    """Return a checksum of this package's source files, because checks use several of its modules."""
    digest = xxh3_128()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}:".encode() + path.read_bytes())
    return digest.hexdigest()


def load_result(folder: Path, key: str) -> dict[str, Any] | None:
    """Return a stored result; None if there is none, or if it is damaged."""
    path = folder / f"{key}.json"
    try:
        checksum, _, body = path.read_bytes().partition(b"\n")
        if checksum.decode() != xxh3_128(body).hexdigest():
            return None
        os.utime(path)
        return json.loads(body)
    except (OSError, ValueError):
        return None


def save_result(folder: Path, key: str, result: dict[str, Any]) -> None:
    """Store a result. A folder that cannot be written to is ignored: the store only saves time."""
    body = json.dumps(result).encode()
    temporary = None
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
            temporary = Path(file.name)
            file.write(xxh3_128(body).hexdigest().encode() + b"\n" + body)
        temporary.replace(folder / f"{key}.json")
        temporary = None
        _remove_oldest(folder)
    if temporary is not None:
        with suppress(OSError):
            temporary.unlink()


def _remove_oldest(folder: Path) -> None:
    entries = [(path.stat().st_mtime, path) for path in folder.glob("*.json")]
    for _, path in sorted(entries)[:-_KEPT]:
        path.unlink(missing_ok=True)
