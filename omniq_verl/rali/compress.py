"""Compress embeddings and their scores to a few basis vectors with scores: PCA, then k-means in score buckets.

RALI sec. 4, equations 1 and 2. Choices that the paper leaves open are marked "our choice". Uses only NumPy and
scikit-learn.

Shapes: ``L`` images, ``D`` embedding size, ``M`` size after PCA, ``N`` buckets, ``K`` basis vectors.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

_STARTS = 10
"""Random starts of each k-means, of which the best is used: scikit-learn's default for random starts."""

_ROUNDS = 1000
"""Maximum iterations per start: enough to converge."""


@dataclass(frozen=True)
class Compression:
    """Sizes of the compressed space. The defaults are the paper's choice, case 8 of its table A.5."""

    dimensions: int | None = 512
    """Size of an embedding after PCA (M); None: no PCA, as in case 2 of table 4."""
    vectors: int = 250
    """Number of basis vectors (K)."""
    buckets: int = 240
    """Number of equal parts of the scale (N); 1: plain k-means, as in case 3 of table 4."""
    center: bool = False
    """Also subtract the mean embedding before scoring. The paper (equation 3) projects the embedding uncentred."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.vectors, self.buckets) < 1 or (self.dimensions is not None and self.dimensions < 1):
            raise ValueError(f"dimensions, vectors and buckets must be >= 1, got {self}")
        if self.seed < 0:
            raise ValueError(f"the seed must be an integer >= 0, got {self.seed}")


@dataclass(frozen=True)
class Projection:
    """Projection of an embedding to its compressed form: ``(E - mean) @ matrix``."""

    mean_D: np.ndarray
    """Mean that is subtracted; zeros if not centred."""
    matrix_DM: np.ndarray
    """U in the paper; orthonormal columns, by decreasing variance."""
    explained: float
    """Share of the variance that the projection keeps, in [0, 1]."""

    def __call__(self, embeddings_LD: np.ndarray) -> np.ndarray:
        return (embeddings_LD - self.mean_D) @ self.matrix_DM


@dataclass(frozen=True)
class Basis:
    """Basis vectors and their scores, computed from the training images."""

    vectors_KM: np.ndarray
    scores_K: np.ndarray
    """Scores of the vectors, on the scale of the labels."""
    clusters_N: np.ndarray
    """Number of vectors per bucket."""


def fit_projection(embeddings_LD: np.ndarray, settings: Compression) -> Projection:
    """PCA of the embeddings, deterministic and in float64; the identity if ``dimensions`` is None.

    Raises:
        ValueError: there are fewer images, or fewer dimensions, than requested.
    """
    embeddings = checked_embeddings(embeddings_LD)
    images, size = embeddings.shape
    mean = embeddings.mean(axis=0) if settings.center else np.zeros(size)
    if settings.dimensions is None:
        return Projection(mean, np.eye(size), 1.0)
    if settings.dimensions > min(images, size):
        raise ValueError(
            f"PCA to {settings.dimensions} dimensions needs at least as many images and embeddings of at least that"
            f" length; there are {images} of length {size}. Fix: use fewer dimensions, or none (no PCA)"
        )
    with np.errstate(invalid="ignore"):  # 0 / 0 if all embeddings are equal
        found = PCA(settings.dimensions, svd_solver="full").fit(embeddings)
    whole = embeddings.var(axis=0, ddof=1).sum() if images > 1 else 0.0
    explained = float(found.explained_variance_.sum() / whole) if whole else 1.0
    components = found.components_.T.copy()  # pyright: ignore[reportOptionalMemberAccess]  it is fitted
    return Projection(mean, components, explained)


def checked_embeddings(embeddings_LD: np.ndarray) -> np.ndarray:
    """Return the embeddings as float64.

    Raises:
        ValueError: the array is empty, has another shape, or is not finite.
    """
    embeddings = np.asarray(embeddings_LD, dtype=np.float64)
    if embeddings.ndim != 2 or not embeddings.size:
        raise ValueError(
            f"embeddings must have the shape [images, numbers], at least one of each; got {embeddings.shape}"
        )
    if not np.isfinite(embeddings).all():
        raise ValueError("embeddings must be finite; an encoder in half precision may have overflowed")
    return embeddings


def bucket_of(scores_L: np.ndarray, low: float, high: float, buckets: int) -> np.ndarray:
    """Bucket of each score, from 0: equal parts of [low, high]; a boundary belongs to the upper part.

    Raises:
        ValueError: a score is not finite or is outside [low, high].
    """
    scores = np.asarray(scores_L, dtype=np.float64)
    if not ((scores >= low) & (scores <= high)).all():
        raise ValueError(f"scores must be in [{low:g}, {high:g}], got {scores.min():g} to {scores.max():g}")
    return np.minimum(((scores - low) / (high - low) * buckets).astype(int), buckets - 1)


def share_clusters(sizes_N: np.ndarray, most_N: np.ndarray, vectors: int) -> np.ndarray:
    """Number of clusters per bucket (k_n), which sum to ``vectors``.

    Our choice, as the paper gives no rule: one for every bucket that is not empty; the others in proportion to the
    sizes, by largest remainder (ties: the lower bucket), but none above ``most_N``. A bucket that cannot take its share
    gets ``most_N``, and the rest is distributed again among the others. If all of ``most_N`` sum to less than
    ``vectors``, the result is ``most_N``.

    Args:
        sizes_N: number of images per bucket.
        most_N: maximum number of clusters per bucket, i.e. its distinct images.
        vectors: K.

    Raises:
        ValueError: there are more non-empty buckets than vectors.
    """
    clusters = np.minimum(most_N, 1)
    if clusters.sum() > vectors:
        raise ValueError(
            f"{clusters.sum()} buckets have images, but there are only {vectors} vectors. Fix: use fewer buckets"
        )
    full = np.zeros(len(clusters), dtype=bool)
    while True:
        open_sizes = np.where(full, 0, sizes_N)
        left = min(vectors, int(most_N.sum())) - int(np.where(full, most_N, np.minimum(most_N, 1)).sum())
        if not open_sizes.any():
            return most_N.copy()
        clusters = np.where(full, most_N, np.minimum(most_N, 1) + _largest_remainder(open_sizes, left))
        if (clusters <= most_N).all():
            return clusters
        full |= clusters > most_N


def _largest_remainder(sizes_N: np.ndarray, seats: int) -> np.ndarray:
    # Integer arithmetic, so that equal shares are exactly equal.
    given, remainders = np.divmod(sizes_N.astype(np.int64) * seats, int(sizes_N.sum()))
    order = np.argsort(-remainders, kind="stable")[: seats - int(given.sum())]
    given[order] += 1
    return given


def bucketed_kmeans(
    compressed_LM: np.ndarray, scores_L: np.ndarray, low: float, high: float, settings: Compression
) -> Basis:
    """k-means in each score bucket; a cluster's vector and score are the means over its images (equations 1 and 2).

    An empty bucket has no vector; a bucket with one image has that image. If there are fewer distinct images than
    ``vectors``, each of them is a vector. If all scores are equal, this is plain k-means with that score everywhere.

    Args:
        compressed_LM: embeddings after PCA.
        scores_L: labels in [low, high].
        low: lower end of the scale that is divided into buckets.
        high: its upper end.
        settings: numbers of vectors and buckets, and the seed.

    Raises:
        ValueError: a score is outside the scale, the number of scores differs from the number of images, or there are
            more non-empty buckets than vectors.
    """
    compressed, scores = checked_embeddings(compressed_LM), np.asarray(scores_L, dtype=np.float64)
    if scores.shape != (len(compressed),):
        raise ValueError(f"{len(compressed)} images need one score each, got the shape {scores.shape}")
    bucket = bucket_of(scores, low, high, settings.buckets)
    members = [np.flatnonzero(bucket == number) for number in range(settings.buckets)]
    most = np.array([len(np.unique(compressed[mine], axis=0)) if len(mine) else 0 for mine in members])
    clusters = share_clusters(np.array([len(mine) for mine in members]), most, settings.vectors)
    means = [
        _means(compressed[mine], scores[mine], number, settings.seed)
        for mine, number in zip(members, clusters, strict=True)
        if number
    ]
    vectors, of_vectors = (np.concatenate(parts) for parts in zip(*means, strict=True))
    return Basis(vectors, of_vectors, clusters)


def _means(compressed: np.ndarray, scores: np.ndarray, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    # Iterate until no image changes its cluster: only then is each nearest to its own mean, as the equations require.
    settings: dict[str, Any] = {"n_init": _STARTS, "max_iter": _ROUNDS, "tol": 0.0, "random_state": seed}
    labels = KMeans(number, **settings).fit(compressed).labels_
    clusters = [labels == one for one in range(number)]
    vectors = np.stack([compressed[mine].mean(axis=0) for mine in clusters])
    return vectors, np.array([scores[mine].mean() for mine in clusters])
