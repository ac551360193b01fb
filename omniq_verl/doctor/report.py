"""The result of all checks."""

from dataclasses import dataclass, field

from omniq_verl.doctor.problem import Problem


@dataclass
class Report:
    """All problems of a run, and counts of what was checked."""

    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    rows: int = 0
    longest_prompt: int = 0
    """Length of the longest prompt in tokens; 0 if none were counted."""
    bad_rows: int = 0
    """Number of rows with a fault."""
    allowed_share: float = 0.0
    """Largest share of bad rows that training leaves out instead of refusing to start."""
    notes: list[str] = field(default_factory=list)
    """Other remarks, one line each."""

    @property
    def blocking(self) -> list[Problem]:
        """Return the problems that prevent a run from starting."""
        if not may_leave_out(self.bad_rows, self.rows, self.allowed_share):
            return self.problems
        return [problem for problem in self.problems if not problem.row]

    def summary(self) -> str:
        """Return the result in one line."""
        found = len(self.problems)
        verdict = "no problem found" if not found else f"{found} problem{'s' * (found > 1)}"
        files = f"{self.files} file{'s' * (self.files != 1)}"
        return f"{files}, {self.rows:,} rows; longest prompt {self.longest_prompt} tokens: {verdict}"


def may_leave_out(bad_rows: int, rows: int, share: float) -> bool:
    """Return whether training continues without the bad rows.

    Args:
        bad_rows: number of rows with a fault.
        rows: number of all rows.
        share: ``data.max_rejected_share``. A single bad row is always allowed, unless this is 0.
    """
    return bad_rows <= max(1, share * rows) if share > 0 else bad_rows == 0
