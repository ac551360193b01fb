"""Git LFS pointers: small text files in place of files that have not been downloaded yet."""

from pathlib import Path

_BEGINNING = b"version https://git-lfs.github.com/spec/"
_LONGEST = 1024
"""Maximum size of a pointer in bytes, as specified by Git LFS."""
_LONGEST_REASON = 1000
"""Maximum length of a reason in characters."""
_READ_BY_PROCESSORS = (".json", ".txt", ".model", ".jinja", ".tiktoken")
PULL = "download the file itself: run git lfs pull in its repository, or use huggingface-cli download"


class BadFile(ValueError):
    """A file that cannot be used.

    Args:
        where: the file or folder.
        what: what is wrong with it.
        fix: what the user can do.
    """

    def __init__(self, where: str, what: str, fix: str):
        what = what if len(what) <= _LONGEST_REASON else f"{what[:_LONGEST_REASON]} ..."  # it may quote a header
        super().__init__(f"{where}: {what}. Fix: {fix}")
        self.where, self.what, self.fix = where, what, fix


def is_pointer(path: Path) -> bool:
    """Whether a file is a Git LFS pointer; False if there is no such file."""
    try:
        if path.stat().st_size > _LONGEST:
            return False
        with open(path, "rb") as file:
            return file.read(len(_BEGINNING)) == _BEGINNING
    except OSError:
        return False


def check_no_pointer(path: Path) -> None:
    """Check that a file is not a Git LFS pointer.

    Raises:
        BadFile: the file is a pointer.
    """
    if is_pointer(path):
        raise BadFile(str(path), "it is a Git LFS pointer, not the file itself", PULL)


def check_no_pointers(folder: Path) -> None:
    """Check that no settings, vocabulary or template in a model's folder is a Git LFS pointer.

    The code that reads weights checks them, because a folder may also contain weights of other frameworks.

    Raises:
        BadFile: a file is a pointer.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix in _READ_BY_PROCESSORS:
            check_no_pointer(path)
