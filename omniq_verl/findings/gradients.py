"""How large is the gradient of a token's log-probability?"""

from collections.abc import Sequence
from typing import Any

import torch

from omniq_verl.findings.reader import Read, Reader

_ROWS = 64  # rows of logits processed at a time


@torch.inference_mode()
def answer_pass(reader: Reader, read: Read) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an answer's logits ``[T, V]``, on the CPU, and the input of the output layer ``[T, D]``, float32."""
    count, seen = len(read.texts), []
    hook = reader.model.get_output_embeddings().register_forward_pre_hook(lambda _layer, given: seen.append(given[0]))
    try:
        logits = reader.model(**reader.on_device(read.inputs), logits_to_keep=count + 1).logits
    finally:
        hook.remove()
    return logits[0, -count - 1 : -1].cpu(), seen[0][0, -count - 1 : -1].float().cpu()


def output_gradients(logits: torch.Tensor, hidden: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    """Return the gradient norm of each token's log-probability with respect to the output layer's weights ``[T]``.

    The result is float32. The gradient is the outer product of ``onehot(token) - p`` and the input of the layer, so its
    norm is the product of their norms, and ``|onehot - p|^2 = 1 - 2 p(token) + sum p^2``.

    Args:
        logits: ``[T, V]``.
        hidden: input of the output layer ``[T, D]``.
        ids: token ids ``[T]``.
    """
    found = []
    for part, chosen in zip(logits.split(_ROWS), torch.tensor(ids).split(_ROWS), strict=True):
        p = part.float().softmax(dim=-1)
        others = p.scatter(1, chosen[:, None], 0.0)
        # The formula 1 - 2 p + sum p^2 would lose digits to cancellation where p is near 1.
        rest = others.sum(dim=1)
        found.append((rest**2 + (others**2).sum(dim=1)).sqrt())
    return torch.cat(found) * hidden.norm(dim=1)


def full_gradients(reader: Reader, read: Read, tokens: Sequence[int]) -> list[float]:
    """Return the gradient norms of some tokens' log-probabilities with respect to all weights.

    This takes one forward pass, and one backward pass per token. Only one token's gradients are in memory at a time.

    Args:
        reader: the model.
        read: question and answer.
        tokens: indices of the tokens within the answer.
    """
    model, count = reader.model, len(read.texts)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    logits: Any = model(**reader.on_device(read.inputs), logits_to_keep=count + 1).logits[0, -count - 1 : -1]
    ids = read.inputs["input_ids"][0, -count:]
    found = []
    for token in tokens:
        log_p = logits[token].float().log_softmax(dim=-1)[ids[token]]
        parts = torch.autograd.grad(log_p, weights, retain_graph=True, allow_unused=True)
        squares = [part.float().pow(2).sum() for part in parts if part is not None]
        found.append(float(torch.stack(squares).sum().sqrt()))
    return found
