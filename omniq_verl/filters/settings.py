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
    """Train on ``all`` groups, ``drop`` those without spread (as in the paper), or also ``refill`` the batch."""
    metric: str = "accuracy"
    """The quantity that must vary in a group, a key of ``compute_score``'s result. The sum would include the format."""
    tau: float = 0.001
    """Threshold of the standard deviation; value from OmniQuality-R sec. 3.3."""
    max_refills: int = 8
    """Most additional draws for one batch (``drop`` draws again only if nothing was kept). Our choice."""
    poll_interval: float = 0.1
    """Seconds between checks for finished rollouts. With verl's 2 s, no step could be shorter than that."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, got {self.mode!r}")
        if not (self.tau >= 0 and self.max_refills >= 0 and self.poll_interval > 0):
            raise ValueError("tau and max_refills must not be negative, and poll_interval must be positive")
