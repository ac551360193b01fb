"""What a check reports."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that would stop or spoil the run, without full stops at the ends of its parts."""

    where: str
    """File, row or configuration key."""
    what: str
    fix: str
    row: bool = False
    """The problem is that of a single row, which training can leave out."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. Fix: {self.fix}."
