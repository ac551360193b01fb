"""PCA and bucketed k-means against values by hand and against the equations, written out plainly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omniq_verl.rali.compress import (
    Basis,
    Compression,
    bucket_of,
    bucketed_kmeans,
    checked_embeddings,
    fit_projection,
    share_clusters,
)


def cloud(images: int, size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(images, size)) * np.linspace(2, 0.1, size) + 1


def test_pca_of_a_line_by_hand():
    # Along (3, 4) / 5 lies all of the variance; the mean is (3, 4).
    points = np.array([[0.0, 0], [3, 4], [6, 8]])
    found = fit_projection(points, Compression(dimensions=1))
    assert np.abs(found.matrix_DM[:, 0]) == pytest.approx([0.6, 0.8])
    assert found.explained == pytest.approx(1.0)
    assert np.abs(found(points)[:, 0]) == pytest.approx([0, 5, 10])
    centred = fit_projection(points, Compression(dimensions=1, center=True))
    assert np.abs(centred(points)[:, 0]) == pytest.approx([5, 0, 5], abs=1e-12)


def test_pca_is_that_of_the_covariance_matrix():
    points = cloud(60, 12)
    values, directions = np.linalg.eigh(np.cov(points.T))
    found = fit_projection(points, Compression(dimensions=5))
    alike = np.abs(found.matrix_DM.T @ directions[:, ::-1][:, :5])
    assert alike == pytest.approx(np.eye(5), abs=1e-9)
    assert found.matrix_DM.T @ found.matrix_DM == pytest.approx(np.eye(5), abs=1e-12)
    assert found.explained == pytest.approx(values[::-1][:5].sum() / values.sum())
    assert np.array_equal(found(points), points @ found.matrix_DM)  # equation 3 takes no mean off


def test_without_pca_embeddings_stay_as_they_are():
    points = cloud(4, 6)
    assert np.array_equal(fit_projection(points, Compression(dimensions=None))(points), points)


@pytest.mark.parametrize(("images", "size"), [(4, 8), (8, 4)])
def test_pca_to_more_than_there_is_names_both_numbers(images, size):
    with pytest.raises(ValueError, match=f"there are {images} of length {size}.*Fix"):
        fit_projection(cloud(images, size), Compression(dimensions=5))


def test_equal_embeddings_have_a_projection():
    found = fit_projection(np.ones((6, 3)), Compression(dimensions=2))
    assert found.explained == 1.0 and np.isfinite(found.matrix_DM).all()


@pytest.mark.parametrize("wrong", [np.zeros((0, 3)), np.zeros(3), np.array([[np.nan]]), np.array([[np.inf, 0]])])
def test_embeddings_that_are_none_are_rejected(wrong):
    with pytest.raises(ValueError, match="embeddings"):
        checked_embeddings(wrong)


def test_buckets_by_hand():
    # [1, 5] in four: 1-2, 2-3, 3-4, 4-5; a boundary belongs to the upper one, the end to the last.
    assert bucket_of(np.array([1, 1.99, 2, 3.5, 4, 5]), 1, 5, 4).tolist() == [0, 0, 1, 2, 3, 3]
    for wrong in (0.99, 5.01, np.nan):
        with pytest.raises(ValueError, match=r"in \[1, 5\]"):
            bucket_of(np.array([3, wrong]), 1, 5, 4)


@pytest.mark.parametrize(
    ("sizes", "vectors", "shared"),
    [
        ([5, 3, 2], 3, [1, 1, 1]),
        ([50, 30, 20], 13, [6, 4, 3]),  # ten more: 5, 3, 2
        ([50, 30, 20], 10, [5, 3, 2]),  # seven more: 3.5, 2.1, 1.4; the half is the largest remainder
        ([1, 1, 1], 3, [1, 1, 1]),
        ([4, 0, 4], 3, [2, 0, 1]),  # equal remainders: the lower bucket
        ([98, 1, 1], 10, [8, 1, 1]),  # quotas 6.86, 0.07, 0.07 of seven
        ([3, 2, 0], 99, [3, 2, 0]),  # fewer images than vectors
        ([90, 2, 8], 20, [16, 1, 3]),  # seventeen more: 15.3, 0.34, 1.36; the last one to the remainder 0.36
    ],
)
def test_clusters_are_shared_by_hand(sizes, vectors, shared):
    assert share_clusters(np.array(sizes), np.array(sizes), vectors).tolist() == shared


def test_what_a_full_bucket_cannot_take_goes_to_the_others():
    # Nine more, 8.1 and 0.9; the first has one place only, and eight go to the second.
    assert share_clusters(np.array([90, 10]), np.array([2, 10]), 11).tolist() == [2, 9]


def test_more_buckets_than_vectors_are_rejected():
    with pytest.raises(ValueError, match=r"3 buckets have images, but there are only 2 vectors.*Fix"):
        share_clusters(np.array([1, 0, 5, 2]), np.array([1, 0, 5, 2]), 2)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any), st.integers(0, 200), st.data())
def test_clusters_always_sum_up_and_keep_to_their_bounds(sizes, more, data):
    most = [data.draw(st.integers(min(size, 1), size)) for size in sizes]
    vectors = sum(size > 0 for size in sizes) + more
    found = share_clusters(np.array(sizes), np.array(most), vectors)
    assert found.sum() == min(vectors, sum(most))
    assert (found <= most).all() and ((found > 0) == (np.array(sizes) > 0)).all()
    equal = share_clusters(np.array(sizes), np.array(sizes), vectors)
    order = np.argsort(sizes, kind="stable")
    assert (np.diff(equal[order]) >= -1).all()  # a larger bucket never has less, but for one remainder among equals


def check_equations(points: np.ndarray, scores: np.ndarray, low: float, high: float, buckets: int, basis: Basis):
    """Equations 1 and 2 as they stand, loop by loop."""
    first = 0
    for number, clusters in enumerate(basis.clusters_N):
        edges = [low + (high - low) * step / buckets for step in (number, number + 1)]
        mine = [m for m, s in enumerate(scores) if edges[0] <= s < edges[1] or (s == high and number == buckets - 1)]
        vectors = basis.vectors_KM[first : first + clusters]
        nearest = [int(np.argmin([np.sum((points[m] - vector) ** 2) for vector in vectors])) for m in mine]
        for cluster in range(clusters):
            inside = [m for m, one in zip(mine, nearest, strict=True) if one == cluster]
            assert inside, "a cluster without images"
            assert vectors[cluster] == pytest.approx(np.mean([points[m] for m in inside], axis=0))
            assert basis.scores_K[first + cluster] == pytest.approx(np.mean([scores[m] for m in inside]))
        first += clusters
    assert first == len(basis.scores_K)


@pytest.mark.parametrize(("buckets", "vectors"), [(1, 7), (4, 9), (8, 8), (30, 40)])
def test_vectors_and_scores_obey_the_equations(buckets, vectors):
    points, scores = cloud(120, 5), np.random.default_rng(1).uniform(1, 5, 120)
    basis = bucketed_kmeans(points, scores, 1, 5, Compression(vectors=vectors, buckets=buckets))
    assert len(basis.scores_K) == vectors and basis.vectors_KM.shape == (vectors, 5)
    check_equations(points, scores, 1, 5, buckets, basis)


def test_clusters_by_hand():
    points = np.array([[0.0], [1], [10], [12], [100]])
    scores = np.array([1.0, 2, 1, 2, 5])
    basis = bucketed_kmeans(points, scores, 1, 5, Compression(vectors=3, buckets=2))
    found = sorted(zip(basis.vectors_KM[:, 0], basis.scores_K, strict=True))
    assert found == [(0.5, 1.5), (11, 1.5), (100, 5)] and basis.clusters_N.tolist() == [2, 1]


def test_one_image_a_bucket_is_its_own_vector():
    points, scores = cloud(4, 3), np.array([4.9, 1.2, 2.5, 3.5])
    basis = bucketed_kmeans(points, scores, 1, 5, Compression(vectors=4, buckets=4))
    assert np.array_equal(basis.vectors_KM, points[[1, 2, 3, 0]]) and basis.scores_K.tolist() == [1.2, 2.5, 3.5, 4.9]


def test_fewer_images_than_vectors_are_all_vectors():
    points, scores = cloud(6, 3), np.array([1, 1, 1, 3, 3, 5.0])
    basis = bucketed_kmeans(points, scores, 1, 5, Compression(vectors=250, buckets=240))
    assert sorted(map(tuple, basis.vectors_KM)) == sorted(map(tuple, points))
    assert sorted(basis.scores_K) == sorted(scores)


def test_equal_images_are_one_vector_with_their_mean_score():
    points = np.array([[1.0, 2], [1, 2], [1, 2], [5, 5]])
    basis = bucketed_kmeans(points, np.array([1, 2, 3, 4.0]), 1, 5, Compression(vectors=9, buckets=1))
    assert sorted(zip(map(tuple, basis.vectors_KM), basis.scores_K, strict=True)) == [((1, 2), 2), ((5, 5), 4)]


def test_equal_scores_are_plain_kmeans_with_that_score():
    points = cloud(50, 4)
    basis = bucketed_kmeans(points, np.full(50, 3.0), 1, 5, Compression(vectors=6, buckets=240))
    plain = bucketed_kmeans(points, np.full(50, 3.0), 1, 5, Compression(vectors=6, buckets=1))
    assert np.array_equal(basis.vectors_KM, plain.vectors_KM) and set(basis.scores_K) == {3.0}
    assert basis.clusters_N.sum() == basis.clusters_N.max() == 6


def test_the_same_seed_gives_the_same_bytes():
    points, scores = cloud(90, 6), np.linspace(1, 5, 90)
    first, again, other = (
        bucketed_kmeans(points, scores, 1, 5, Compression(vectors=12, buckets=3, seed=seed)) for seed in (3, 3, 4)
    )
    assert first.vectors_KM.tobytes() == again.vectors_KM.tobytes()
    assert first.vectors_KM.shape == other.vectors_KM.shape


def test_scores_and_images_have_to_be_as_many():
    with pytest.raises(ValueError, match="3 images need one score each"):
        bucketed_kmeans(cloud(3, 2), np.array([1.0]), 1, 5, Compression(vectors=1, buckets=1))


@pytest.mark.parametrize("wrong", [{"vectors": 0}, {"buckets": 0}, {"dimensions": 0}, {"seed": -1}])
def test_sizes_below_one_are_rejected(wrong):
    with pytest.raises(ValueError):
        Compression(**wrong)
