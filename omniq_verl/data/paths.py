"""Find the files of a data set below its folder, whatever their case and nesting, and none outside of it."""

import os
from pathlib import Path, PurePosixPath


class BadPath(ValueError):
    """A name that is not to be followed."""


class FileIndex:
    """All files below a folder, found by name.

    Copies of a data set differ in the case of names and folders and in how deep they are nested; so a name is compared
    without case, and any folder may stand above it.

    Args:
        root: the folder; folders that are links are not entered.
        without: a folder whose files are left out, as what a script writes below the root.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    def __init__(self, root: Path, without: Path | None = None):
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: there is no such folder; name the data set's with --root")
        self.root = root.resolve()
        # Text, not Path objects: these are ten times as large, and data sets have up to a million files.
        self._by_name: dict[str, list[str]] = {}
        left_out = None if without is None else str(without.resolve())
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if os.path.join(folder, name) != left_out]
            below = os.path.relpath(folder, self.root)
            for name in names:
                path = name if below == "." else f"{below}/{name}"
                self._by_name.setdefault(name.lower(), []).append(path)

    def names(self) -> list[str]:
        """All files, by their paths below the root, in the order of their characters."""
        return sorted(path for paths in self._by_name.values() for path in paths)

    def find(self, name: str, *folders: str) -> Path | None:
        """The file whose path ends in ``name``; None if there is none.

        Args:
            name: with its folders as far as the label file gives them.
            folders: where several files match, the one that lies in the first of these (without case) is taken; then
                the one in the same case, then the least deep.

        Raises:
            BadPath: the name is absolute or leads upwards, several files match equally well, or the file is a link to
                outside of the root or has a path that is no Unicode.
        """
        parts = _safe_parts(name)
        found = [path.split("/") for path in self._by_name.get(parts[-1].lower(), [])]
        found = [path for path in found if _ends_in(path, parts)]
        if not found:
            return None
        wanted = [folder.lower() for folder in folders]
        below = _preferred(found, parts, wanted)
        path = self.root / below
        # Folders that are links were not entered, so only the file itself may be one. Path.resolve() raises where links
        # lead in a circle; realpath() leaves them to whoever opens the file.
        if os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(self.root):
            raise BadPath(f"{below!r} is a link to outside of the root")
        if any("\ud800" <= letter <= "\udfff" for letter in below):
            raise BadPath(f"{below!r} is no Unicode, so that no row could name it")
        return path


def _safe_parts(name: str) -> list[str]:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts or path.parts[0].endswith(":"):
        raise BadPath(f"{name!r} is no name of a file below the root")
    return list(path.parts)


def _ends_in(path: list[str], parts: list[str]) -> bool:
    return [part.lower() for part in path[-len(parts) :]] == [part.lower() for part in parts]


def _preferred(found: list[list[str]], parts: list[str], folders: list[str]) -> str:
    ranked = sorted((_preference(path, parts, folders), "/".join(path)) for path in found)
    best = [path for preference, path in ranked if preference == ranked[0][0]]
    if len(best) > 1:
        named = ", ".join(best[:5])
        raise BadPath(f"{'/'.join(parts)!r} may be any of {named}: keep one, or give its folder by --root")
    return best[0]


def _preference(path: list[str], parts: list[str], folders: list[str]) -> tuple[int, bool, int]:
    above = {part.lower() for part in path[:-1]}
    rank = next((number for number, folder in enumerate(folders) if folder in above), len(folders))
    return rank, path[-len(parts) :] != parts, len(path)
