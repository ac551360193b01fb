"""The result of a check."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Something that would stop or spoil the run. Its texts do not end with a full stop."""

    where: str
    """File, row or configuration key."""
    what: str
    fix: str
    row: bool = False
    """Whether the problem concerns a single row, which training can leave out."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. Fix: {self.fix}."
