"""Which tokens a policy gradient is taken on. The pure gate; its verl worker lies beside it."""

from omniq_verl.losses.entropy_gate import entropy_gate_mask

__all__ = ["entropy_gate_mask"]
