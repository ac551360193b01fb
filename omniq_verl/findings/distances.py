"""How far two sets of vectors are apart: MMD and Fréchet distance with their nulls, and a probe of the set."""

from dataclasses import dataclass

import numpy as np

from omniq_verl.evaluation.intervals import Interval, mean_interval
from omniq_verl.findings.features import folds_of

PERMUTATIONS = 1000
FRECHET_PERMUTATIONS = 100
"""Fewer, as each takes a singular value decomposition."""
_EQUAL = 1e-12
"""Squared distance, as a share of the largest squared norm, below which vectors of float32 are equal."""


@dataclass(frozen=True)
class Discrepancy:
    """A distance of two samples, and where it lies among those of mixed samples."""

    value: float
    p: float
    """Share of mixed samples at least as far apart, one added to both numbers."""
    null_mean: float
    null_high: float
    """The 95% quantile of the mixed samples'."""


def mmd(x: np.ndarray, y: np.ndarray, permutations: int = PERMUTATIONS, seed: int = 0) -> Discrepancy:
    """The unbiased estimate of MMD squared with a Gaussian kernel, and a permutation test of "the same distribution".

    The value may be a little below 0 where the samples are alike. The kernel is ``exp(-d^2 / (2 m^2))``, m the median
    distance of all pairs of vectors, so that their unit does not count. Source: Gretton et al., A Kernel Two-Sample
    Test (JMLR 2012), eq. 3 and section 8.

    Args:
        x: ``[N, D]``, N from 2.
        y: ``[M, D]``, M from 2.
        permutations: how often the vectors are divided anew.
        seed: of the permutations.

    Raises:
        ValueError: a sample has fewer than two vectors.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"MMD needs two vectors of each set, got {len(x)} and {len(y)}")
    kernel = gaussian_kernel(np.concatenate([x, y]))
    first = np.arange(len(x) + len(y)) < len(x)
    value = _unbiased(kernel, first)
    random = np.random.default_rng(seed)
    null = np.array([_unbiased(kernel, random.permutation(first)) for _ in range(permutations)])
    # Divisions with the same vectors on each side differ in their last bits and are ties.
    p = (1 + int((null >= value - 1e-12).sum())) / (1 + permutations)
    return Discrepancy(float(value), p, float(null.mean()), float(np.quantile(null, 0.95)))


@dataclass(frozen=True)
class Frechet(Discrepancy):
    """The squared Fréchet distance; its value and null are in ``unit``."""

    unit: float
    """Mean squared distance of a vector to the mean of both samples; ``value * unit`` has the unit of the vectors."""


def frechet(x: np.ndarray, y: np.ndarray, permutations: int = FRECHET_PERMUTATIONS, seed: int = 0) -> Frechet:
    """The squared Fréchet distance of the Gaussians with the samples' means and covariances, and a permutation test.

    ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))``. Source: Dowson and Landau (1982); Heusel et al., GANs Trained by a
    Two Time-Scale Update Rule (2017), eq. 6. With ``S1 = A'A`` and ``S2 = B'B`` the trace of the root is the sum of the
    singular values of ``AB'``, which is exact for covariances of any rank and needs no matrix of the vectors' width.

    Covariances are not shrunk. They are estimates, and with few vectors for their width the distance is too large:
    samples of one distribution are apart by about ``null_mean``. Compare with the null, and only equal sample sizes
    with one another.

    Args:
        x: ``[N, D]``, N from 2.
        y: ``[M, D]``, M from 2.
        permutations: how often the vectors are divided anew.
        seed: of the permutations.

    Raises:
        ValueError: a sample has fewer than two vectors.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"the Fréchet distance needs two vectors of each set, got {len(x)} and {len(y)}")
    both = np.concatenate([x, y]).astype(np.float64)
    both -= both.mean(axis=0)
    products, first = both @ both.T, np.arange(len(both)) < len(x)
    unit = products.trace() / len(both)
    random = np.random.default_rng(seed)
    value = _frechet(products, first)
    null = np.array([_frechet(products, random.permutation(first)) for _ in range(permutations)])
    p = (1 + int((null >= value - 1e-9 * unit).sum())) / (1 + permutations)
    scale = unit or 1.0  # equal vectors everywhere: all distances are 0
    return Frechet(value / scale, p, float(null.mean()) / scale, float(np.quantile(null, 0.95)) / scale, float(unit))


def _frechet(products: np.ndarray, first: np.ndarray) -> float:
    """From the scalar products of all vectors ``[N, N]``."""
    one, across, other = products[first][:, first], products[first][:, ~first], products[~first][:, ~first]
    n, m = len(one), len(other)
    means = one.mean() + other.mean() - 2 * across.mean()
    spread = (one.trace() - n * one.mean()) / (n - 1) + (other.trace() - m * other.mean()) / (m - 1)
    centred = across - across.mean(axis=0) - across.mean(axis=1, keepdims=True) + across.mean()
    root = np.linalg.svd(centred, compute_uv=False).sum() / np.sqrt((n - 1) * (m - 1))
    return float(max(0.0, means + spread - 2 * root))


def gaussian_kernel(vectors: np.ndarray) -> np.ndarray:
    """Kernel of all pairs ``[N, N]``; all ones where the vectors are equal."""
    vectors = np.asarray(vectors, dtype=np.float64)
    norms = (vectors**2).sum(axis=1)
    squares = norms[:, None] + norms[None] - 2 * vectors @ vectors.T
    # What equal vectors leave is rounding errors, whose median would become the kernel's width.
    squares[squares < _EQUAL * norms.max(initial=0)] = 0
    np.fill_diagonal(squares, 0)
    middle = np.median(squares[np.triu_indices(len(vectors), 1)])
    # More than half of the pairs may be equal, as where a model writes the same text again and again.
    middle = middle if middle > 0 else squares.mean()
    return np.exp(-squares / (2 * middle)) if middle > 0 else np.ones_like(squares)


def _unbiased(kernel: np.ndarray, first: np.ndarray) -> float:
    n, m = int(first.sum()), int((~first).sum())
    one = first.astype(float)
    within = one @ kernel @ one - kernel.diagonal() @ one
    across = one @ kernel @ (1 - one)
    other = (1 - one) @ kernel @ (1 - one) - kernel.diagonal() @ (1 - one)
    return float(within / (n * (n - 1)) + other / (m * (m - 1)) - 2 * across / (n * m))


@dataclass(frozen=True)
class Probe:
    """How often a linear probe names the data set of a vector that it was not fitted to."""

    accuracy: float
    bounds: Interval
    chance: float
    """The share of the largest data set: what always naming it gets."""


def domain_probe(vectors: np.ndarray, domain: np.ndarray, resamples: int = 1000, seed: int = 0) -> Probe:
    """The cross-validated accuracy of a logistic regression on standardised vectors (five folds, C = 1).

    Sets of different sizes are weighted alike in the fit. The accuracy is the mean over the sets, which is 1 / sets by
    chance whatever their sizes.

    Args:
        vectors: ``[N, D]``.
        domain: number of each vector's data set ``[N]``.
        resamples: of the interval over images.
        seed: of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds, right = folds_of(len(domain), seed), np.empty(len(domain))
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        if len(np.unique(domain[train])) < 2:
            raise ValueError("a linear probe needs images of two data sets in every fold. Fix: give more rows")
        fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
        right[test] = fitted.fit(vectors[train], domain[train]).predict(vectors[test]) == domain[test]
    sets = np.unique(domain)
    weights = np.array([1 / (len(sets) * (domain == one).mean()) for one in sets])[np.searchsorted(sets, domain)]
    return Probe(float((right * weights).mean()), mean_interval(right * weights, resamples), 1 / len(sets))


def plane(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Positions in a plane by t-SNE ``[N, 2]``, from standardised vectors.

    Args:
        vectors: ``[N, D]``, N from 4.
        seed: of the optimisation.
    """
    from sklearn.manifold import TSNE

    spread = vectors.std(axis=0)
    standard = (vectors - vectors.mean(axis=0)) / np.where(spread > 0, spread, 1)
    run_options = {"perplexity": min(30.0, (len(vectors) - 1) / 3), "init": "random", "random_state": seed}
    return TSNE(2, **run_options).fit_transform(standard.astype(np.float32))
