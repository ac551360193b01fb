"""The entropy gate: restricts the policy gradient to the tokens with the highest entropy."""

import math

import torch

from omniq_verl.losses.settings import GateSettings


def entropy_gate_mask(
    entropy: torch.Tensor, response_mask: torch.Tensor, rho: float = 0.2, scope: str = "batch"
) -> torch.Tensor:
    """Select the share ``rho`` of response tokens with the highest entropy.

    A token passes if its entropy is at least the threshold. All tokens that tie with it pass, so the share can be
    larger than ``rho``. It is at least ``rho`` if there are any tokens.
    Source: OmniQuality-R eq. 1; rho = 0.2 from its code, after Wang et al. 2025 ("Beyond the 80/20 rule").

    Args:
        entropy: entropy of the next-token distribution in nats, ``[B, T]``.
        response_mask: marks the response tokens, ``[B, T]``, boolean or 0/1.
        rho: share in (0, 1].
        scope: ``"batch"`` for one threshold over all given response tokens (eq. 1); ``"sequence"`` for one per row (the
            authors' code).

    Returns:
        Boolean mask ``[B, T]``; False wherever ``response_mask`` is.

    Raises:
        ValueError: shapes differ, rho or scope is out of range, or a response token's entropy is NaN.
    """
    GateSettings(rho, scope)  # checks rho and scope
    if entropy.shape != response_mask.shape:
        raise ValueError(f"entropy and response_mask differ in shape: {entropy.shape} and {response_mask.shape}")
    mask = response_mask.bool()
    entropy = entropy.detach()
    if scope == "sequence":
        return mask & (entropy >= sequence_thresholds(entropy, mask, rho)[:, None])
    return mask & (entropy >= top_share_threshold(entropy[mask], rho))


def top_count(tokens: int, rho: float) -> int:
    """Return how many tokens are in the highest share ``rho`` of ``tokens``, rounded up so that at least one passes."""
    # 0.1 * 30 is slightly more than 3 in floating point, which must not be rounded up to 4.
    return max(math.ceil(rho * tokens - 1e-9 * tokens), 1)


def top_share_threshold(values: torch.Tensor, rho: float) -> float:
    """Return the smallest value of the highest share ``rho`` of ``values`` ``[N]``; infinity if there are no values.

    Raises:
        ValueError: a value is NaN.
    """
    if values.numel() == 0:
        return math.inf
    # Not torch.quantile, which accepts at most 2^24 elements.
    count = top_count(values.numel(), rho)
    threshold = torch.kthvalue(values, values.numel() - count + 1).values.item()
    _reject_nan(bool(values.max().isnan()))  # max is NaN if any value is
    return threshold


def sequence_thresholds(entropy: torch.Tensor, mask: torch.Tensor, rho: float) -> torch.Tensor:
    """Return ``top_share_threshold`` of each row, ``[B]``."""
    lengths = mask.sum(dim=1)
    ordered = entropy.masked_fill(~mask, -math.inf).sort(dim=1, descending=True).values
    _reject_nan(bool(ordered[:, :1].isnan().any()))
    counts = torch.tensor([top_count(int(length), rho) for length in lengths], device=entropy.device)
    thresholds = ordered.gather(1, (counts - 1).clamp(min=0)[:, None])[:, 0]
    return thresholds.masked_fill(lengths == 0, math.inf)


def _reject_nan(found: bool) -> None:
    if found:
        raise ValueError("the entropy of a response token is NaN")
