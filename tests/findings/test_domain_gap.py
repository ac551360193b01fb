"""Distances of two sets of vectors against plain references, and the page of the domain gap."""

import json
from itertools import permutations

import numpy as np
import pytest
from findings_builders import answer_text, answered, save_model, setup_of, write_rows
from rich.console import Console
from scipy.linalg import sqrtm

from omniq_verl.findings import domain_gap
from omniq_verl.findings.distances import domain_probe, frechet, gaussian_kernel, mmd, plane

RNG = np.random.default_rng(0)


def plain_mmd(x: np.ndarray, y: np.ndarray, width: float) -> float:
    """Gretton et al. 2012, eq. 3, sum by sum."""

    def kernel(a, b):
        return np.exp(-((a - b) ** 2).sum() / (2 * width**2))

    n, m = len(x), len(y)
    within = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    other = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within + other - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


def median_distance(vectors: np.ndarray) -> float:
    pairs = [np.linalg.norm(a - b) for ref, a in enumerate(vectors) for b in vectors[ref + 1 :]]
    return float(np.sqrt(np.median(np.square(pairs))))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 8), (12, 3)])
def test_mmd_is_the_plain_formula(n, m):
    x, y = RNG.normal(size=(n, 4)), RNG.normal(size=(m, 4)) + 1
    width = median_distance(np.concatenate([x, y]))
    assert mmd(x, y, 10).value == pytest.approx(plain_mmd(x, y, width))


def test_the_null_is_that_of_all_divisions():
    x, y = RNG.normal(size=(3, 2)), RNG.normal(size=(3, 2)) + 2
    both, width = np.concatenate([x, y]), median_distance(np.concatenate([x, y]))
    every = [plain_mmd(both[list(order[:3])], both[list(order[3:])], width) for order in permutations(range(6))]
    found = mmd(x, y, 4000)
    assert found.null_mean == pytest.approx(np.mean(every), abs=0.01)
    assert found.p == pytest.approx(np.mean(np.array(every) >= found.value - 1e-9), abs=0.03)


def test_samples_of_one_distribution_are_within_the_null_and_p_is_uniform():
    found = [mmd(RNG.normal(size=(20, 3)), RNG.normal(size=(25, 3)), 99, seed) for seed in range(60)]
    assert abs(np.mean([one.value for one in found])) < 0.01
    assert 0.35 < np.mean([one.p for one in found]) < 0.65
    assert np.mean([one.p < 0.05 for one in found]) < 0.15


def test_samples_far_apart_have_the_least_p():
    found = mmd(RNG.normal(size=(20, 3)), RNG.normal(size=(20, 3)) + 5, 199)
    assert found.p == 1 / 200 and found.value > found.null_high


def test_equal_vectors_are_no_distance_and_a_single_one_is_an_error():
    same = mmd(np.ones((4, 2)), np.ones((5, 2)), 20)
    assert same.value == pytest.approx(0) and same.p == 1
    with pytest.raises(ValueError, match="two vectors of each set, got 1 and 5"):
        mmd(np.ones((1, 2)), np.ones((5, 2)))


def test_the_unit_of_the_vectors_does_not_count():
    x, y = RNG.normal(size=(6, 3)), RNG.normal(size=(7, 3)) + 1
    assert mmd(1000 * x, 1000 * y, 5).value == pytest.approx(mmd(x, y, 5).value)


def test_a_kernel_of_mostly_equal_vectors_still_tells_the_others_apart():
    vectors = np.array([[0.0]] * 9 + [[1.0]])
    kernel = gaussian_kernel(vectors)
    assert kernel[0, 1] == 1 and kernel[0, 9] < 0.5


def plain_frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Heusel et al. 2017, eq. 6, by scipy's root of a matrix."""
    one, other = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    means = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    return means + np.trace(one + other - 2 * sqrtm(one @ other).real)


@pytest.mark.parametrize(("n", "m"), [(30, 20), (9, 50)])
def test_the_frechet_distance_is_the_plain_formula(n, m):
    x, y = RNG.normal(size=(n, 4)), RNG.normal(size=(m, 4)) @ np.diag([1, 2, 3, 0.5]) + 1
    found = frechet(x, y, 3)
    assert found.value * found.unit == pytest.approx(plain_frechet(x, y))
    both = np.concatenate([x, y])
    assert found.unit == pytest.approx(((both - both.mean(axis=0)) ** 2).sum(axis=1).mean())


def test_the_frechet_distance_of_diagonal_gaussians_is_that_of_their_deviations():
    signs = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T  # 8 vectors with a diagonal covariance
    first, other, shift = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 0.1]), np.array([1.0, -2.0, 0.0])
    found = frechet(signs * first, signs * other + shift, 3)
    expected = (shift**2).sum() + 8 / 7 * ((first - other) ** 2).sum()  # 8 / 7: covariances divide by n - 1
    assert found.value * found.unit == pytest.approx(expected)


def test_the_frechet_distance_of_fewer_vectors_than_dimensions_has_the_bias_of_its_null():
    x, y = RNG.normal(size=(12, 40)), RNG.normal(size=(15, 40))
    found = frechet(x, y, 60)
    assert found.value == pytest.approx(found.null_mean, rel=0.2) and found.value > 0.5 and found.p > 0.02
    assert frechet(x, y + 3, 60).p == 1 / 61


def test_equal_sets_have_no_frechet_distance_and_the_unit_does_not_count():
    x, y = RNG.normal(size=(6, 9)), RNG.normal(size=(7, 9)) + 1
    assert frechet(x, x, 20).value == pytest.approx(0, abs=1e-9)
    assert frechet(np.ones((4, 2)), np.ones((5, 2)), 20).value == 0
    assert frechet(1000 * x, 1000 * y, 5).value == pytest.approx(frechet(x, y, 5).value)
    with pytest.raises(ValueError, match="two vectors of each set, got 1 and 5"):
        frechet(np.ones((1, 2)), np.ones((5, 2)))


def test_a_probe_finds_what_separates_sets_and_nothing_where_nothing_does():
    domain = np.repeat([0, 1], [30, 90])
    apart = RNG.normal(size=(120, 5)) + 4 * domain[:, None]
    found = domain_probe(apart, domain, 200)
    assert found.accuracy > 0.99 and found.chance == 0.5
    alike = domain_probe(RNG.normal(size=(120, 5)), domain, 200)
    assert 0.3 < alike.accuracy < 0.7
    assert alike.bounds.low < alike.accuracy < alike.bounds.high


def test_the_accuracy_is_the_mean_over_sets():
    domain = np.repeat([0, 1], [10, 90])
    constant = domain_probe(np.ones((100, 2)), domain, 50)  # a probe that sees nothing always names one of them
    assert constant.accuracy == pytest.approx(0.5, abs=0.1)


def test_the_plane_has_a_place_for_every_vector_even_equal_ones():
    refs = plane(np.concatenate([np.zeros((10, 3)), np.ones((10, 3))]))
    assert refs.shape == (20, 2) and np.isfinite(refs).all()
    assert np.array_equal(refs, plane(np.concatenate([np.zeros((10, 3)), np.ones((10, 3))])))


# The finding


def test_the_page_has_every_space_of_two_sets(tmp_path, monkeypatch):
    target = list(np.linspace(1.2, 4.8, 12))
    first = write_rows(tmp_path / "one.parquet", target, "one", "a")
    second = write_rows(tmp_path / "two.parquet", target, "two", "b")
    setup = setup_of(tmp_path / "out", [save_model(tmp_path / "step")], [first, second])
    texts = [answer_text(one) for one in target * 2]
    monkeypatch.setattr(domain_gap, "ask_all", lambda *_: [answered(setup, texts, "step")])
    domain_gap.find_domain_gap(setup, None, -1, None, Console(quiet=True))
    numbers = json.loads((tmp_path / "out/domain_gap.json").read_text())
    model = numbers["models"]["step"]
    assert set(model) == {"visual", "visual_late", "reasoning"}
    assert numbers["images"]["step"]["sets"] == {"one": 12, "two": 12}
    for space in model.values():
        assert set(space["mmd"]) == set(space["frechet"]) == {"one / two"} and space["probe"]["chance"] == 0.5
    # The same photographs and labels in both sets: no gap anywhere.
    assert abs(model["visual"]["mmd"]["one / two"]["value"]) < 0.1 and model["visual"]["mmd"]["one / two"]["p"] > 0.5
    assert model["visual"]["frechet"]["one / two"]["value"] < 1e-6


def test_one_set_has_no_gap(tmp_path, monkeypatch):
    setup = setup_of(
        tmp_path / "out", [save_model(tmp_path / "step")], [write_rows(tmp_path / "rows.parquet", [2.0] * 6)]
    )
    monkeypatch.setattr(domain_gap, "ask_all", lambda *_: [answered(setup, [answer_text(2.0)] * 6, "step")])
    with pytest.raises(ValueError, match=r"from 1 data set.*Fix"):
        domain_gap.find_domain_gap(setup, None, -1, None, Console(quiet=True))
    with pytest.raises(ValueError, match=r"--layer is 9, but the model has 2\. Fix"):
        domain_gap.find_domain_gap(setup, None, 9, None, Console(quiet=True))


def test_clips_features_are_those_of_its_text_encoder(tmp_path):
    from rali_builders import tiny_encoder_folder

    folder = tiny_encoder_folder(tmp_path / "clip")
    texts = ["slight noise", "blur", "slight noise"]
    found = domain_gap.clip_features(str(folder), texts)
    assert len(found) == 3 and np.array_equal(found[0], found[2]) and not np.allclose(found[0], found[1])
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_rounding_errors_are_no_width_of_the_kernel():
    rng = np.random.default_rng(0)
    text = rng.normal(size=2048) * 30  # one text written again and again, as its features have it
    assert (gaussian_kernel(np.tile(text, (9, 1))) == 1).all()
    others = rng.normal(size=(3, 2048)) * 30
    kernel = gaussian_kernel(np.concatenate([np.tile(text, (9, 1)), others]))
    assert (kernel[:9, :9] == 1).all() and (kernel[:9, 9:] > 0.1).all()
