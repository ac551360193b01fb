"""Equation 3 and its fit, by hand and against plain Python."""

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omniq_verl.rali.compress import Basis, Projection
from omniq_verl.rali.fit import BasisScorer, Fit, fit_basis, trained_parameters


def scorer_of(vectors, scores, matrix=None, mean=None, temperature: float = 1.0) -> BasisScorer:
    vectors = np.asarray(vectors, dtype=float)
    matrix = np.eye(vectors.shape[1]) if matrix is None else np.asarray(matrix, dtype=float)
    mean = np.zeros(len(matrix)) if mean is None else np.asarray(mean, dtype=float)
    basis = Basis(vectors, np.asarray(scores, dtype=float), np.array([len(scores)]))
    return BasisScorer(Projection(mean, matrix, 1.0), basis, temperature)


def plain_score(embedding, matrix, vectors, scores, temperature) -> float:
    """Equation 3, number by number."""
    inside = [sum(matrix[d][m] * embedding[d] for d in range(len(embedding))) for m in range(len(matrix[0]))]
    weights = []
    for vector in vectors:
        dot = sum(a * b for a, b in zip(inside, vector, strict=True))
        weights.append(math.exp(dot / math.hypot(*inside) / math.hypot(*vector) / temperature))
    return sum(w * f for w, f in zip(weights, scores, strict=True)) / sum(weights)


def test_two_vectors_by_hand():
    scorer = scorer_of([[2, 0], [0, 3]], [1, 5])
    # Cosines 1 and 0, weights e / (e + 1) and 1 / (e + 1); then both 1 / sqrt(2); then -1 and 0.
    found = scorer(torch.tensor([[7.0, 0], [4, 4], [-1, 0], [0, 0]]))
    share = math.e / (math.e + 1)
    assert found.tolist() == pytest.approx([share + 5 * (1 - share), 3, 5 * share + 1 - share, 3])


def test_equation_3_plainly():
    rng = np.random.default_rng(0)
    matrix, vectors, scores = rng.normal(size=(6, 4)), rng.normal(size=(9, 4)), rng.uniform(1, 5, 9)
    embeddings = rng.normal(size=(5, 6))
    for temperature in (1.0, 0.05):
        found = scorer_of(vectors, scores, matrix, temperature=temperature)(torch.tensor(embeddings)).tolist()
        plain = [plain_score(one, matrix, vectors, scores, temperature) for one in embeddings]
        assert found == pytest.approx(plain, abs=1e-5)


def test_a_mean_is_taken_off_before():
    scorer = scorer_of([[1, 0], [0, 1]], [1, 5], mean=[10, 0])
    assert scorer(torch.tensor([[10.0, 2]])).item() == pytest.approx((5 * math.e + 1) / (math.e + 1))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.02, 10), st.floats(0.1, 100))
def test_scores_lie_within_the_basis_scores_and_do_not_depend_on_lengths(seed, temperature, longer):
    rng = np.random.default_rng(seed)
    vectors, scores, embeddings = rng.normal(size=(5, 3)), rng.uniform(1, 5, 5), rng.normal(size=(4, 3))
    found = scorer_of(vectors, scores, temperature=temperature)(torch.tensor(embeddings))
    assert scores.min() - 1e-4 <= found.min() and found.max() <= scores.max() + 1e-4
    again = scorer_of(vectors * longer, scores, temperature=temperature)(torch.tensor(embeddings / longer))
    assert again.tolist() == pytest.approx(found.tolist(), abs=2e-4)
    order = rng.permutation(5)
    shuffled = scorer_of(vectors[order], scores[order], temperature=temperature)(torch.tensor(embeddings))
    assert shuffled.tolist() == pytest.approx(found.tolist(), abs=1e-4)


def task(images: int = 200, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Directions on a half circle, in some of the dimensions; the label is the angle."""
    rng = np.random.default_rng(0)
    share = rng.uniform(0, 1, images)
    embeddings = rng.normal(scale=0.05, size=(images, size))
    embeddings[:, 0] += np.cos(np.pi * share)
    embeddings[:, 1] += np.sin(np.pi * share)
    return embeddings, 1 + 4 * share


def start(size: int = 8) -> BasisScorer:
    return scorer_of(np.random.default_rng(1).normal(size=(12, size)), np.linspace(1, 5, 12))


def test_a_fit_learns_and_says_how_far_the_scores_went():
    embeddings, labels = task()
    scorer = start()
    logged = list(fit_basis(scorer, embeddings, labels, Fit(epochs=60, batch=50)))
    assert [line["epoch"] for line in logged] == list(range(60))
    assert logged[-1]["loss"] < 0.05 < 1 < logged[0]["loss"]
    ends = [scorer.scores_K.min().item(), scorer.scores_K.max().item()]
    assert [logged[-1]["lowest"], logged[-1]["highest"]] == pytest.approx(ends)
    # At temperature 1 the scores have to leave the scale for predictions to fill it.
    assert ends[0] < 1 and ends[1] > 5


def test_the_first_step_by_hand():
    # AdamW's first step is the learning rate times the sign of the gradient.
    scorer = scorer_of([[1, 0], [0, 1]], [1, 5])
    list(fit_basis(scorer, np.array([[1.0, 0]]), np.array([5.0]), Fit(epochs=1, learning_rate=0.01)))
    assert scorer.scores_K.tolist() == pytest.approx([1.01, 5.01], abs=1e-6)
    # Towards the first vector, which is nearer and lower: its first number has no say (a cosine of 1 is the largest).
    assert scorer.vectors_KM[1].tolist() == pytest.approx([0.01, 1], abs=1e-6)


@pytest.mark.parametrize(("projection", "numbers"), [(False, 12 * 8 + 12), (True, 12 * 8 + 12 + 64)])
def test_how_many_numbers_the_fit_trains(projection, numbers):
    embeddings, labels = task()
    scorer, chosen = start(), Fit(epochs=2, projection=projection)
    assert sum(parameter.numel() for parameter in trained_parameters(scorer, chosen)) == numbers
    before = {name: tensor.clone() for name, tensor in scorer.state_dict().items()}
    list(fit_basis(scorer, embeddings, labels, chosen))
    changed = {name for name, tensor in scorer.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"vectors_KM", "scores_K", *(["projection_DM"] if projection else [])}


def test_at_the_papers_sizes_the_fit_trains_128_thousand_numbers():
    scorer = scorer_of(np.ones((250, 512)), np.ones(250), matrix=np.ones((768, 512)))
    assert sum(one.numel() for one in trained_parameters(scorer, Fit())) == 250 * 512 + 250 == 128_250


def test_no_epochs_change_nothing():
    embeddings, labels = task()
    scorer = start()
    before = {name: tensor.clone() for name, tensor in scorer.state_dict().items()}
    assert list(fit_basis(scorer, embeddings, labels, Fit(epochs=0))) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in scorer.state_dict().items())


def test_the_same_seed_gives_the_same_numbers():
    embeddings, labels = task()
    found = []
    for seed in (0, 0, 1):
        scorer = start()
        list(fit_basis(scorer, embeddings, labels, Fit(epochs=2, batch=32, seed=seed)))
        found.append(scorer.vectors_KM.detach())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_equal_labels_are_named_and_learned(caplog):
    embeddings, _ = task()
    scorer = start()
    with caplog.at_level(logging.WARNING):
        list(fit_basis(scorer, embeddings, np.full(200, 2.5), Fit(epochs=60)))
    assert "all labels are 2.5" in caplog.text
    assert scorer(torch.tensor(embeddings)).tolist() == pytest.approx([2.5] * 200, abs=0.1)


@pytest.mark.parametrize("temperature", [0, -1, float("inf"), float("nan")])
def test_temperatures_that_are_none_are_rejected(temperature):
    with pytest.raises(ValueError, match="temperature"):
        scorer_of([[1, 0]], [1], temperature=temperature)


def test_sizes_that_do_not_fit_together_are_rejected():
    with pytest.raises(ValueError, match="vectors of size 2, but a projection to 3"):
        scorer_of([[1, 0]], [1], matrix=np.eye(3))
    with pytest.raises(ValueError, match="1 vectors but 2 scores"):
        scorer_of([[1, 0]], [1, 2])
    with pytest.raises(ValueError, match="1 embeddings but 2 labels"):
        list(fit_basis(start(), np.zeros((1, 8)), np.zeros(2), Fit()))
    with pytest.raises(FloatingPointError, match="Fix"):
        list(fit_basis(start(), np.full((2, 8), np.nan), np.zeros(2), Fit()))
