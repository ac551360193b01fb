"""Log-probabilities and entropies of tokens from logits, in fp32, a few rows at a time.

The logits of 16,384 tokens over a vocabulary of 152,064 take 5 GB in bf16. In fp32, together with the softmax, they
would take four times as much. This module therefore converts the rows in chunks, and computes the gradient in chunks,
too.
"""

from collections.abc import Iterator
from typing import Any

import torch

_CHUNK = 2**26
"""Number of logits that are converted to fp32 at a time: 256 MiB. Larger chunks gain little (docs/benchmarks.md)."""
_LOWEST = -1e4
"""Lower bound of logarithms. Smaller ones have probability 0 in fp32; the bound avoids multiplying 0 by infinity."""


def token_log_probs(
    logits: torch.Tensor,
    labels: torch.Tensor,
    temperature: torch.Tensor | None = None,
    entropy: bool = False,
    overwrite: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute ``log p(label)`` and the entropy of ``p = softmax(logits / temperature)``.

    Args:
        logits: ``[tokens, vocabulary]``, of any floating-point type.
        labels: ``[tokens]``, from 0 to vocabulary - 1.
        temperature: ``[tokens]``, above 0; None for 1.
        entropy: whether to compute entropies.
        overwrite: let the backward pass write the gradient over the logits, which saves their size in memory. Nothing
            else may need the logits afterwards.

    Returns:
        Log-probabilities in nats, fp32 ``[tokens]``; and entropies in nats, of the same shape and type, or None.
    """
    log_probs, entropies = _TokenLogProbs.apply(logits, labels, temperature, entropy, overwrite)
    return log_probs, entropies if entropy else None


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        labels: torch.Tensor,
        temperature: torch.Tensor | None,
        entropy: bool,
        overwrite: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        normalizer = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        log_probs, entropies = torch.empty_like(normalizer), torch.zeros_like(normalizer)
        for rows in _chunks(logits):
            scores = _scores(logits, temperature, rows)
            normalizer[rows] = torch.logsumexp(scores, dim=-1)
            log_probs[rows] = scores.gather(1, labels[rows, None])[:, 0] - normalizer[rows]
            if entropy:
                # entr(p) = -p log p. The usual form, normalizer - sum(p * score), loses digits if scores are large.
                entropies[rows] = torch.special.entr(torch.softmax(scores, dim=-1)).sum(dim=-1)
        ctx.save_for_backward(logits, labels, temperature, normalizer, entropies)
        ctx.entropy, ctx.overwrite = entropy, overwrite
        return log_probs, entropies

    @staticmethod
    def backward(ctx: Any, by_log_prob: torch.Tensor, by_entropy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits, labels, temperature, normalizer, entropies = ctx.saved_tensors
        gradient = logits if ctx.overwrite else torch.empty_like(logits)
        for rows in _chunks(logits):
            logs = _scores(logits, temperature, rows).sub_(normalizer[rows, None])
            probabilities = logs.exp()
            # d log p(label) / d score = [label] - p, and d entropy / d score = -p (log p + entropy)
            factor = -by_log_prob[rows, None]
            if ctx.entropy:
                logs.clamp_(min=_LOWEST)
                factor = factor - by_entropy[rows, None] * (logs + entropies[rows, None])
            scores = probabilities.mul_(factor)
            scores.scatter_add_(1, labels[rows, None], by_log_prob[rows, None])
            if temperature is not None:
                scores /= temperature[rows, None]
            gradient[rows] = scores.to(gradient.dtype)
        return gradient, None, None, None, None


def _chunks(logits: torch.Tensor) -> Iterator[slice]:
    rows = max(1, _CHUNK // logits.shape[-1])
    for start in range(0, len(logits), rows):
        yield slice(start, start + rows)


def _scores(logits: torch.Tensor, temperature: torch.Tensor | None, rows: slice) -> torch.Tensor:
    """Return a copy of some rows in fp32, divided by their temperature."""
    scores = logits[rows].to(torch.float32, copy=True)
    return scores if temperature is None else scores.div_(temperature[rows, None])
