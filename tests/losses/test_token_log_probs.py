"""Log-probabilities and entropies against log_softmax in fp64."""

import pytest
import torch

from omniq_verl.losses import token_log_probs as module
from omniq_verl.losses.token_log_probs import token_log_probs

TOKENS, VOCABULARY = 23, 40


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(TOKENS, VOCABULARY, generator=random)).to(dtype).requires_grad_()
    labels = torch.randint(0, VOCABULARY, (TOKENS,), generator=random)
    return logits, labels, torch.rand(TOKENS, generator=random) + 0.5


def written_out(logits: torch.Tensor, labels: torch.Tensor, temperature: torch.Tensor | None):
    scores = logits.double() if temperature is None else logits.double() / temperature.double()[:, None]
    logs = torch.log_softmax(scores, dim=-1)
    return logs.gather(1, labels[:, None])[:, 0], -(logs.exp() * logs).sum(-1)


@pytest.fixture(params=[1, 7, 10**6], ids=lambda rows: f"{rows} rows at a time")
def chunks(request, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", request.param * VOCABULARY)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("entropy", [False, True])
def test_values_and_gradients_are_those_of_the_formulas(warm, overwrite, entropy):
    logits, labels, temperature = inputs()
    temperature = temperature if warm else None
    expected, expected_entropy = written_out(logits, labels, temperature)
    weights = torch.linspace(-1, 2, TOKENS, dtype=torch.float64)
    total = (weights * expected).sum() + (0.3 * weights.flip(0) * expected_entropy).sum() * entropy
    (wanted,) = torch.autograd.grad(total, logits)

    passed = logits * 1  # as from a layer: overwriting a leaf would change the input itself
    found, found_entropy = token_log_probs(passed, labels, temperature, entropy, overwrite)
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=0)
    total = (weights * found).sum()
    if entropy:
        torch.testing.assert_close(found_entropy.double(), expected_entropy, atol=2e-6, rtol=0)
        total = total + (0.3 * weights.flip(0) * found_entropy).sum()
    (gradient,) = torch.autograd.grad(total, logits)
    torch.testing.assert_close(gradient, wanted.float(), atol=2e-6, rtol=1e-5)
    assert (found_entropy is not None) == entropy


def test_bf16_logits_give_fp32_entropies_without_ties():
    # In bf16 the step between entropies near 6 nats is 1/32, so that many of them would be equal.
    random = torch.Generator().manual_seed(1)
    logits = (0.1 * torch.randn(500, 400, generator=random)).bfloat16()
    _, entropies = token_log_probs(logits, torch.zeros(500, dtype=torch.long), entropy=True)
    assert entropies.dtype == torch.float32
    assert len(entropies.unique()) > 400
    assert len(entropies.bfloat16().unique()) < 10


def test_overwriting_reuses_the_memory_of_the_logits():
    logits, labels, _ = inputs()
    passed = logits * 1
    found, _ = token_log_probs(passed, labels, overwrite=True)
    (gradient,) = torch.autograd.grad(found.sum(), passed)
    assert gradient.data_ptr() == passed.data_ptr()


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4, 0.0], [-3e38, 0.0, 3e38]], requires_grad=True)
    found, entropies = token_log_probs(logits, torch.tensor([0, 2]), entropy=True)
    assert found.tolist() == [0.0, 0.0]
    assert torch.isfinite(entropies).all()
    (found.sum() + entropies.sum()).backward()
    assert torch.isfinite(logits.grad).all()
