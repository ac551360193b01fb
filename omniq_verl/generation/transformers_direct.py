"""Expectations of scores by a transformers model: the question is read once, and all ways of writing go on from there.

Each request is computed alone, so that its result does not depend on which others are asked for.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from omniq_verl.generation.expectation import Expectation, Prefix, Walk, gather


def expect(model: Any, inputs: Mapping[str, Any], walk: Walk, at_once: int) -> Expectation:
    """Take a walk to its end.

    Args:
        model: a generative transformers model on the device of ``inputs``.
        inputs: of its processor for one request, the beginning of the answer included; ``input_ids`` is ``[1, L]``.
        walk: at its start.
        at_once: prefixes that share a forward pass; each needs a copy of the question's keys and values.
    """
    import torch

    with torch.inference_mode():
        found = model(**inputs, use_cache=True, logits_to_keep=1)
        asked = walk.open
        walk.tell(gather(asked, _chosen(found.logits, list(asked.values()))))
        while asked := walk.open:
            prefixes, rows = list(asked), []
            for first in range(0, len(prefixes), at_once):
                some = prefixes[first : first + at_once]
                logits = _continue(model, found.past_key_values, some)
                rows += _chosen(logits, [asked[prefix] for prefix in some])
            walk.tell(gather(asked, rows))
    return walk.result()


def _continue(model: Any, cache: Any, prefixes: Sequence[Prefix]) -> Any:
    """Logits ``[N, 1, V]`` behind each of N prefixes of one length."""
    import torch

    cache = copy.deepcopy(cache)
    cache.batch_repeat_interleave(len(prefixes))
    # Without a mask, as nothing is padded: of one, Qwen2.5-VL takes the positions of the whole sequence.
    tokens = torch.tensor(prefixes, device=model.device)
    return model(input_ids=tokens, past_key_values=cache, logits_to_keep=1).logits


def _chosen(logits: Any, asked: Sequence[Sequence[int]]) -> list[dict[int, float]]:
    """Log-probabilities of the tokens that are asked for, in fp32, of logits ``[N, 1, V]``."""
    log_probs = logits[:, -1].float().log_softmax(-1)
    return [
        dict(zip(tokens, row[list(tokens)].tolist(), strict=True)) for row, tokens in zip(log_probs, asked, strict=True)
    ]
