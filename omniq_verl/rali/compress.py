"""Embeddings and their scores -> a few basis vectors, each with a score: PCA, then k-means in buckets of scores.

RALI sec. 4, equations 1 and 2. What the paper leaves open is marked "ours". Numpy and scikit-learn alone.

Shapes: ``L`` images, ``D`` numbers of an embedding, ``M`` after PCA, ``N`` buckets, ``K`` basis vectors.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

_STARTS = 10
"""Of each k-means, the best of which is kept: scikit-learn's number for random starts."""

_ROUNDS = 1000
"""Of each start, at most: enough for it to end by itself."""


@dataclass(frozen=True)
class Compression:
    """Sizes of the compressed space; the defaults are the paper's choice, case 8 of its table A.5."""

    dimensions: int | None = 512
    """Of an embedding after PCA (M); None: no PCA, as case 2 of table 4."""
    vectors: int = 250
    """Basis vectors (K)."""
    buckets: int = 240
    """Equal parts of the scale (N); 1: plain k-means, as case 3 of table 4."""
    center: bool = False
    """Take the mean embedding off before scoring, too. Equation 3 projects the embedding as it is: the paper."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.vectors, self.buckets) < 1 or (self.dimensions is not None and self.dimensions < 1):
            raise ValueError(f"dimensions, vectors and buckets from 1, got {self}")
        if self.seed < 0:
            raise ValueError(f"the seed is a whole number from 0, got {self.seed}")


@dataclass(frozen=True)
class Projection:
    """From an embedding to its compressed form: ``(E - mean) @ matrix``."""

    mean_D: np.ndarray
    """Zeros where nothing is taken off."""
    matrix_DM: np.ndarray
    """U of the paper, its columns orthonormal, the direction of largest variance first."""
    explained: float
    """Share of the variance that is kept, in [0, 1]."""

    def __call__(self, embeddings_LD: np.ndarray) -> np.ndarray:
        return (embeddings_LD - self.mean_D) @ self.matrix_DM


@dataclass(frozen=True)
class Basis:
    """What is left of the training images."""

    vectors_KM: np.ndarray
    scores_K: np.ndarray
    """On the scale of the labels."""
    clusters_N: np.ndarray
    """How many of them each bucket has."""


def fit_projection(embeddings_LD: np.ndarray, settings: Compression) -> Projection:
    """PCA of the embeddings, in float64 and without randomness; the identity where ``dimensions`` is None.

    Raises:
        ValueError: there are fewer images, or fewer dimensions, than are asked for.
    """
    embeddings = checked_embeddings(embeddings_LD)
    images, size = embeddings.shape
    mean = embeddings.mean(axis=0) if settings.center else np.zeros(size)
    if settings.dimensions is None:
        return Projection(mean, np.eye(size), 1.0)
    if settings.dimensions > min(images, size):
        raise ValueError(
            f"PCA to {settings.dimensions} dimensions needs as many images and as long embeddings; there are {images}"
            f" of {size}. Fix: fewer dimensions, or none (no PCA)"
        )
    with np.errstate(invalid="ignore"):  # of shares of no variance, where all are equal
        found = PCA(settings.dimensions, svd_solver="full").fit(embeddings)
    whole = embeddings.var(axis=0, ddof=1).sum() if images > 1 else 0.0
    explained = float(found.explained_variance_.sum() / whole) if whole else 1.0
    return Projection(mean, found.components_.T.copy(), explained)


def checked_embeddings(embeddings_LD: np.ndarray) -> np.ndarray:
    """Embeddings as float64.

    Raises:
        ValueError: none, of another shape, or not finite.
    """
    embeddings = np.asarray(embeddings_LD, dtype=np.float64)
    if embeddings.ndim != 2 or not embeddings.size:
        raise ValueError(f"embeddings are [images, numbers], at least one of each; got the shape {embeddings.shape}")
    if not np.isfinite(embeddings).all():
        raise ValueError("embeddings must be finite; an encoder in half precision may have overflowed")
    return embeddings


def bucket_of(scores_L: np.ndarray, low: float, high: float, buckets: int) -> np.ndarray:
    """The bucket of each score, from 0: equal parts of [low, high], a boundary belongs to the upper one.

    Raises:
        ValueError: a score is not finite or lies outside.
    """
    scores = np.asarray(scores_L, dtype=np.float64)
    if not ((scores >= low) & (scores <= high)).all():
        raise ValueError(f"scores must lie in [{low:g}, {high:g}], got {scores.min():g} to {scores.max():g}")
    return np.minimum(((scores - low) / (high - low) * buckets).astype(int), buckets - 1)


def share_clusters(sizes_N: np.ndarray, most_N: np.ndarray, vectors: int) -> np.ndarray:
    """How many clusters each bucket gets (k_n), the sum being ``vectors``.

    Ours, as the paper does not say: one for every bucket that is not empty; the others in proportion to the sizes, by
    largest remainder (of equal ones, the lower bucket's), none above ``most_N``. Where a bucket cannot take its share,
    it gets ``most_N``, and the others share the rest in this way, from the beginning. Where all of ``most_N`` together
    are fewer than ``vectors``, it is these.

    Args:
        sizes_N: images of each bucket.
        most_N: the most clusters each can have: its images that differ.
        vectors: K.

    Raises:
        ValueError: more buckets have images than there are vectors.
    """
    clusters = np.minimum(most_N, 1)
    if clusters.sum() > vectors:
        raise ValueError(
            f"{clusters.sum()} buckets have images, but there are {vectors} vectors for them. Fix: use fewer buckets"
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
    # In whole numbers, so that equal shares are equal.
    given, remainders = np.divmod(sizes_N.astype(np.int64) * seats, int(sizes_N.sum()))
    order = np.argsort(-remainders, kind="stable")[: seats - int(given.sum())]
    given[order] += 1
    return given


def bucketed_kmeans(
    compressed_LM: np.ndarray, scores_L: np.ndarray, low: float, high: float, settings: Compression
) -> Basis:
    """k-means in each bucket of scores; a cluster's vector and score are the means of its images (equations 1 and 2).

    An empty bucket has no vector, a bucket of one image that image. With fewer images that differ than ``vectors``,
    each is a vector, and there are fewer. Equal scores lie in one bucket: plain k-means, every vector with that score.

    Args:
        compressed_LM: embeddings after PCA.
        scores_L: labels in [low, high].
        low: of the scale that is cut into buckets.
        high: likewise.
        settings: numbers of vectors and buckets, and the seed.

    Raises:
        ValueError: a score outside of the scale, another number of scores than of images, more buckets with images than
            vectors.
    """
    compressed, scores = checked_embeddings(compressed_LM), np.asarray(scores_L, dtype=np.float64)
    if scores.shape != (len(compressed),):
        raise ValueError(f"{len(compressed)} images need as many scores, got the shape {scores.shape}")
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
    # Until no image changes its cluster: then each is nearest to the mean of its own, as the equations have it.
    labels = KMeans(number, n_init=_STARTS, max_iter=_ROUNDS, tol=0.0, random_state=seed).fit(compressed).labels_
    clusters = [labels == one for one in range(number)]
    vectors = np.stack([compressed[mine].mean(axis=0) for mine in clusters])
    return vectors, np.array([scores[mine].mean() for mine in clusters])
