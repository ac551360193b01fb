"""Find the files of a data set below its folder, ignoring case, Unicode form and nesting; never outside the folder."""

import os
from argparse import ArgumentTypeError
from pathlib import Path, PurePosixPath

from omniq_verl.data.names import composed, is_utf8, name_key, shown_name


class BadPath(ValueError):
    """A name that must not be used as a path."""


def given_path(text: str) -> Path:
    """Return a path from a command line, with a leading ``~`` expanded, because shells do not do so after ``=``.

    Raises:
        ArgumentTypeError: the path is empty, which would mean the current folder.
    """
    if not text.strip():
        raise ArgumentTypeError("the path is empty; if it is a variable of the shell, it is not set")
    return Path(text).expanduser()


class FileIndex:
    """All files below a folder, found by name.

    Copies of a data set differ in the case of names and folders, in whether accents are separate characters (as in
    archives made on macOS), and in their nesting. Names are compared without these differences, and any folders may
    precede them. A name may also begin with the name of the root folder.

    Args:
        root: the folder. Linked folders are not entered. In a snapshot of Hugging Face's cache, files may link to its
            blobs.
        without: a folder to leave out, such as the one that a script writes below the root.

    Raises:
        FileNotFoundError: the folder does not exist.
    """

    def __init__(self, root: Path, without: Path | None = None):
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: there is no such folder; name the data set's with --root")
        self.root = root.resolve()
        self._roots = (self.root, Path(os.path.abspath(root)))
        self._linked = (self.root, *_blobs(self.root))
        # Text instead of Path objects, which are ten times as large: data sets have up to a million files.
        self._by_name: dict[str, list[str]] = {}
        left_out = None if without is None else str(without.resolve())
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if os.path.join(folder, name) != left_out]
            below = os.path.relpath(folder, self.root)
            for name in names:
                path = name if below == "." else f"{below}/{name}"
                self._by_name.setdefault(name_key(name), []).append(path)

    def names(self) -> list[str]:
        """Return the paths of all files below the root, sorted."""
        return sorted(path for paths in self._by_name.values() for path in paths)

    def find(self, name: str, *folders: str) -> Path | None:
        """Return the file whose path ends in ``name``; None if there is none.

        Args:
            name: the name, with as many folders as the label file gives.
            folders: if several files match, the one in the first of these folders (ignoring case) wins; then the one
                with exactly this name, then the one in the same case, then the least nested one.

        Raises:
            BadPath: the name is absolute or leads upwards, several files match equally well, the file links to a place
                outside the root, or its path is not UTF-8.
        """
        if name.startswith(f"{self.root}/"):
            below = name.removeprefix(f"{self.root}/")
            raise BadPath(f"{name!r} is an absolute path, and names begin below the root. Fix: write {below!r}")
        parts = _safe_parts(name)
        found = self._ending_in(parts)
        if "\\" in name and not found:  # a separator on Windows, but it may be part of a file name here
            parts = list(PurePosixPath(name).parts)
            found = self._ending_in(parts)
        found = found or self._from_above(_safe_parts(name))
        if not found:
            return None
        wanted = [name_key(folder) for folder in folders]
        below = _preferred(found, parts, wanted)
        path = self.root / below
        # Linked folders were not entered, so only the file itself may be a link. Path.resolve() raises on circular
        # links; realpath() leaves them to the code that opens the file.
        if os.path.islink(path) and not any(map(Path(os.path.realpath(path)).is_relative_to, self._linked)):
            raise BadPath(f"{below!r} is a link to outside of the root. Fix: copy the data set with cp -rL")
        if not is_utf8(below):
            raise BadPath(f"the name {shown_name(below)} is not UTF-8, so rows cannot name it. Fix: rename the file")
        return path

    def _from_above(self, parts: list[str]) -> list[list[str]]:
        """Find files by a name that begins with the root folder, or with the root and folders above it."""
        for count in range(1, len(parts)):
            if any(parts[:count] == list(root.parts[-count:]) for root in self._roots):
                return [path for path in self._ending_in(parts[count:]) if len(path) == len(parts) - count]
        return []

    def _ending_in(self, parts: list[str]) -> list[list[str]]:
        paths = (path.split("/") for path in self._by_name.get(name_key(parts[-1]), []))
        return [path for path in paths if _ends_in(path, parts)]


def _blobs(root: Path) -> list[Path]:
    """Return the folder ``blobs`` next to ``snapshots``: all files of a data set in Hugging Face's cache link to it."""
    snapshots = next((folder for folder in root.parents if folder.name == "snapshots"), None)
    return [] if snapshots is None else [(snapshots.parent / "blobs").resolve()]


def _safe_parts(name: str) -> list[str]:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts or path.parts[0].endswith(":"):
        raise BadPath(f"{name!r} is not the name of a file below the root")
    return list(path.parts)


def _ends_in(path: list[str], parts: list[str]) -> bool:
    return [name_key(part) for part in path[-len(parts) :]] == [name_key(part) for part in parts]


def _preferred(found: list[list[str]], parts: list[str], folders: list[str]) -> str:
    ranked = sorted((_preference(path, parts, folders), "/".join(path)) for path in found)
    best = [path for preference, path in ranked if preference == ranked[0][0]]
    if len(best) > 1:
        named = ", ".join(map(shown_name, best[:5]))
        raise BadPath(f"{'/'.join(parts)!r} may be any of {named}. Fix: keep one, or give its folder with --root")
    return best[0]


def _preference(path: list[str], parts: list[str], folders: list[str]) -> tuple[int, int, int]:
    above = {name_key(part) for part in path[:-1]}
    rank = next((number for number, folder in enumerate(folders) if folder in above), len(folders))
    same = path[-len(parts) :] == parts, list(map(composed, path[-len(parts) :])) == list(map(composed, parts))
    return rank, 2 - sum(same), len(path)
