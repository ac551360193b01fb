"""Settings of the entropy gate."""

from dataclasses import dataclass

SCOPES = ("batch", "sequence")
DENOMINATORS = ("all", "gated")
POLICIES = ("old", "current")
LINEAR_LOSSES = ("vanilla", "dppo_tv", "dppo_kl", "gspo", "sapo", "gpg", "cispo")
"""verl's policy losses that are linear in a token's advantage, so the gate is exact."""


@dataclass(frozen=True)
class GateSettings:
    """``gate_*`` of a recipe's ``actor_rollout_ref.actor.policy_loss``.

    Raises:
        ValueError: a value is out of range.
    """

    rho: float | None = None
    """Share of tokens used for the policy gradient; None for all tokens. OmniQuality-R's code uses 0.2."""
    scope: str = "batch"
    """``batch``: one threshold for the mini-batch over all ranks (eq. 1). ``sequence``: one for each response."""
    denominator: str = "all"
    """``all``: divide by all response tokens (eq. 1). ``gated``: only by those that pass (the authors' code)."""
    entropy: str = "old"
    """Entropies of the ``old`` policy (before this step's first update) or the ``current`` one (extra forward pass)."""

    def __post_init__(self) -> None:
        if self.rho is not None and not 0 < self.rho <= 1:
            raise ValueError(f"rho must lie in (0, 1], got {self.rho}")
        for name, value, known in (
            ("scope", self.scope, SCOPES),
            ("denominator", self.denominator, DENOMINATORS),
            ("entropy", self.entropy, POLICIES),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}, got {value!r}")
