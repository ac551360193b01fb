"""What the checks found."""

from dataclasses import dataclass, field

from omniq_verl.doctor.problem import Problem


@dataclass
class Report:
    """All problems of a run, and what was looked at."""

    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    rows: int = 0
    longest_prompt: int = 0
    """Tokens; 0 if none was counted."""
    notes: list[str] = field(default_factory=list)
    """What else is worth knowing, one line each."""

    def summary(self) -> str:
        """One line for the user."""
        found = len(self.problems)
        verdict = "no problem found" if not found else f"{found} problem{'s' * (found > 1)}"
        return f"{self.files} files, {self.rows:,} rows, {self.longest_prompt} tokens the longest prompt: {verdict}"
