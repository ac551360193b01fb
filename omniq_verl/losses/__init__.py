"""Select tokens for the policy gradient: the entropy gate as a pure function, and its use in verl's worker."""

from omniq_verl.losses.entropy_gate import entropy_gate_mask

__all__ = ["entropy_gate_mask"]
