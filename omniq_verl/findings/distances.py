"""Distances between two sets of vectors: MMD and Fréchet distance with permutation tests, and a linear probe."""

from dataclasses import dataclass

import numpy as np

from omniq_verl.evaluation.intervals import Interval, mean_interval
from omniq_verl.findings.features import folds_of

PERMUTATIONS = 1000
FRECHET_PERMUTATIONS = 100
"""Fewer than ``PERMUTATIONS``, because each one needs a singular value decomposition."""
_EQUAL = 1e-12
"""Float32 vectors count as equal if their squared distance is below this share of the largest squared norm."""


@dataclass(frozen=True)
class Discrepancy:
    """The distance between two samples, compared with the distances after mixing them at random."""

    value: float
    p: float
    """Share of random divisions that are at least as far apart, with 1 added to numerator and denominator."""
    null_mean: float
    null_high: float
    """95% quantile of the distances after mixing."""


def mmd(x: np.ndarray, y: np.ndarray, permutations: int = PERMUTATIONS, seed: int = 0) -> Discrepancy:
    """Estimate squared MMD without bias, with a Gaussian kernel, and test if both samples have the same distribution.

    The test permutes the vectors. The value may be slightly below 0 if the samples are alike. The kernel is
    ``exp(-d^2 / (2 m^2))``, where m is the median distance over all pairs of vectors, so the unit of the vectors does
    not matter. Source: Gretton et al., A Kernel Two-Sample Test (JMLR 2012), eq. 3 and section 8.

    Args:
        x: ``[N, D]``, N from 2.
        y: ``[M, D]``, M from 2.
        permutations: number of random divisions of the vectors.
        seed: seed of the permutations.

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
    # Two divisions with the same vectors on each side are ties, but their values differ in the last bits.
    p = (1 + int((null >= value - 1e-12).sum())) / (1 + permutations)
    return Discrepancy(float(value), p, float(null.mean()), float(np.quantile(null, 0.95)))


@dataclass(frozen=True)
class Frechet(Discrepancy):
    """The squared Fréchet distance. ``value`` and the null distances are multiples of ``unit``."""

    unit: float
    """Mean squared distance of the vectors from their common mean. ``value * unit`` has the vectors' squared unit."""


def frechet(x: np.ndarray, y: np.ndarray, permutations: int = FRECHET_PERMUTATIONS, seed: int = 0) -> Frechet:
    """Return the squared Fréchet distance of Gaussians with the samples' moments, and a permutation test.

    The distance is ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))``. Source: Dowson and Landau (1982); Heusel et al.,
    GANs Trained by a Two Time-Scale Update Rule (2017), eq. 6. With ``S1 = A'A`` and ``S2 = B'B``, the trace of the
    root is the sum of the singular values of ``AB'``. This is exact for covariances of any rank and needs no matrix of
    the vectors' width.

    Covariances are not shrunk. They are estimates, so the distance is too large if there are few vectors for their
    width: two samples of one distribution are about ``null_mean`` apart. Compare the value with the null, and compare
    distances with each other only if the sample sizes are equal.

    Args:
        x: ``[N, D]``, N from 2.
        y: ``[M, D]``, M from 2.
        permutations: number of random divisions of the vectors.
        seed: seed of the permutations.

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
    scale = unit or 1.0  # unit is 0 if all vectors are equal; then all distances are 0
    return Frechet(value / scale, p, float(null.mean()) / scale, float(np.quantile(null, 0.95)) / scale, float(unit))


def _frechet(products: np.ndarray, first: np.ndarray) -> float:
    """Compute the distance from the scalar products of all vectors ``[N, N]``."""
    one, across, other = products[first][:, first], products[first][:, ~first], products[~first][:, ~first]
    n, m = len(one), len(other)
    means = one.mean() + other.mean() - 2 * across.mean()
    spread = (one.trace() - n * one.mean()) / (n - 1) + (other.trace() - m * other.mean()) / (m - 1)
    centred = across - across.mean(axis=0) - across.mean(axis=1, keepdims=True) + across.mean()
    root = np.linalg.svd(centred, compute_uv=False).sum() / np.sqrt((n - 1) * (m - 1))
    return float(max(0.0, means + spread - 2 * root))


def gaussian_kernel(vectors: np.ndarray) -> np.ndarray:
    """Return the kernel of all pairs ``[N, N]``. It is all ones if all vectors are equal."""
    vectors = np.asarray(vectors, dtype=np.float64)
    norms = (vectors**2).sum(axis=1)
    squares = norms[:, None] + norms[None] - 2 * vectors @ vectors.T
    # Between equal vectors only rounding errors remain. Their median must not become the kernel's width.
    squares[squares < _EQUAL * norms.max(initial=0)] = 0
    np.fill_diagonal(squares, 0)
    middle = np.median(squares[np.triu_indices(len(vectors), 1)])
    # More than half of the pairs may be equal, for example if a model keeps writing the same text.
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
    """How often a linear probe correctly names the data set of vectors outside its training folds."""

    accuracy: float
    bounds: Interval
    chance: float
    """Share of the largest data set, which is what a probe gets that always names this set."""


def domain_probe(vectors: np.ndarray, domain: np.ndarray, resamples: int = 1000, seed: int = 0) -> Probe:
    """Return the cross-validated accuracy of a logistic regression on standardised vectors (five folds, C = 1).

    The fit gives each data set the same weight, whatever its size. The accuracy is the mean over the sets. By chance it
    is 1 / (number of sets), whatever their sizes.

    Args:
        vectors: ``[N, D]``.
        domain: index of each vector's data set ``[N]``.
        resamples: bootstrap resamples over images, for the interval.
        seed: seed of the folds.
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
    """Place standardised vectors in a plane with t-SNE ``[N, 2]``.

    Args:
        vectors: ``[N, D]``, N from 4.
        seed: seed of the optimisation.
    """
    from sklearn.manifold import TSNE

    spread = vectors.std(axis=0)
    standard = (vectors - vectors.mean(axis=0)) / np.where(spread > 0, spread, 1)
    run_options = {"perplexity": min(30.0, (len(vectors) - 1) / 3), "init": "random", "random_state": seed}
    return TSNE(2, **run_options).fit_transform(standard.astype(np.float32))
