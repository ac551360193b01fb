"""Settings of the group-std filter."""

from dataclasses import dataclass

MODES = ("all", "drop", "refill")


@dataclass(frozen=True)
class FilterSettings:
    """``trainer.v1.sampler.sampler_kwargs`` of a recipe.

    Raises:
        TypeError: a setting is unknown.
        ValueError: a value is out of range.
    """

    mode: str = "all"
    """Train on ``all`` groups, ``drop`` those without spread (the paper's reading), or also ``refill`` their places."""
    metric: str = "accuracy"
    """The quantity that must spread, a key of ``compute_score``'s result. Not the sum, which includes the format."""
    tau: float = 0.001
    """OmniQuality-R sec. 3.3."""
    max_refills: int = 8
    """Further draws for one batch (``drop`` draws again only if nothing was kept). Ours."""
    poll_interval: float = 0.1
    """Seconds between checks for finished rollouts; verl's 2 s would be a lower bound for every step."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, got {self.mode!r}")
        if not (self.tau >= 0 and self.max_refills >= 0 and self.poll_interval > 0):
            raise ValueError("tau and max_refills must not be negative, and poll_interval must be positive")
