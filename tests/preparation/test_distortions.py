"""Operators that distort an image: worked by hand, and on photographs."""

import numpy as np
import pytest
from image_builders import noise, smooth
from skimage.metrics import peak_signal_noise_ratio

from data_prep import photo_distortions
from omniq_verl.preparation.distortions import LEVELS, OPERATORS, degrade

SIDE = 96
CELLS = [(name, level) for name, operator in OPERATORS.items() for level in operator.levels]


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def grey(value: int, side: int = 200) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def made(image: np.ndarray, name: str, level: int, *seed: int) -> np.ndarray:
    return degrade(image, name, level, rng(*seed))[0]


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """The middle of twenty photographs."""
    found = []
    for photo in photo_distortions.load_photos().values():
        top, left = ((side - SIDE) // 2 for side in photo.shape[:2])
        found.append(np.ascontiguousarray(photo[top : top + SIDE, left : left + SIDE]))
    return found


# Operators on photographs


def psnr(clean: np.ndarray, image: np.ndarray) -> float:
    return peak_signal_noise_ratio(clean, image, data_range=255) if (image != clean).any() else 100.0


@pytest.mark.parametrize("name", OPERATORS)
def test_each_level_is_worse_than_the_one_before(photos, name):
    assert len(photos) == 20
    levels = OPERATORS[name].levels
    images = [[made(photo, name, level, ref) for ref, photo in enumerate(photos)] for level in levels]
    values = np.array([[psnr(*pair) for pair in zip(photos, row, strict=True)] for row in images])
    assert (np.diff(values.mean(axis=1)) < -0.8).all()  # decibels; a fifth more error
    for before, after, worse in zip(images, images[1:], np.diff(values, axis=0) < 0, strict=False):
        # Where an operator has nothing left to take, both levels are one image, which `Degradation` rejects as a row.
        same = [(one == other).all() for one, other in zip(before, after, strict=True)]
        assert (worse | same).all() and sum(same) <= 3, values.round(1)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_mildest_level_shows_and_leaves_what_is_there(photos, name):
    values = [psnr(photo, made(photo, name, 1, ref)) for ref, photo in enumerate(photos)]
    assert 18 < np.mean(values) < 37  # decibels: as much as a quarter of the light is gone, or noise of 3.6 of 255


@pytest.mark.parametrize(("name", "level"), CELLS)
@pytest.mark.parametrize("shape", [(11, 11), (11, 40), (64, 48)])
def test_an_image_keeps_its_shape_and_type_and_the_clean_one_its_values(name, level, shape):
    clean = noise(*shape)
    before = clean.copy()
    image = made(clean, name, level, 0)
    assert (image.shape, image.dtype) == (clean.shape, np.uint8)
    assert (image != clean).any()
    np.testing.assert_array_equal(clean, before)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_images_are_taken(name, value):
    for level in OPERATORS[name].levels:
        assert made(grey(value, 24), name, level, 0).dtype == np.uint8


@pytest.mark.parametrize("name", OPERATORS)
def test_the_same_generator_gives_the_same_image(name):
    image = smooth(40, 50)
    first, parameters = degrade(image, name, 3, rng(7))
    again, same = degrade(image, name, 3, rng(7))
    np.testing.assert_array_equal(first, again)
    assert parameters == same
    if OPERATORS[name].distortion == "noise" or name in ("blur_glass", "blur_jitter", "blur_motion"):
        assert (made(image, name, 3, 8) != first).any()


@pytest.mark.parametrize("name", [name for name in OPERATORS if OPERATORS[name].distortion in ("blur", "darken")])
def test_a_grey_image_stays_grey(name):
    image = np.repeat(smooth(40, 50)[..., :1], 3, axis=2)
    darker = made(image, name, 3, 0)
    assert (np.ptp(darker, axis=2) == 0).all()


# What is rejected


@pytest.mark.parametrize("level", [0, 6, -1, "slight", None])
@pytest.mark.parametrize("name", OPERATORS)
def test_other_levels_are_rejected(name, level):
    with pytest.raises(ValueError, match="level must be one of 1, 2, 3, 4"):
        degrade(grey(9, 16), name, level, rng(0))


def test_webp_has_no_catastrophic_level():
    assert {name: len(operator.levels) for name, operator in OPERATORS.items() if len(operator.levels) != 5} == {
        "compression_webp": 4
    }


def test_other_operators_and_arrays_are_rejected():
    with pytest.raises(ValueError, match="'rain'"):
        degrade(grey(9, 16), "rain", 1, rng(0))
    for image in (np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3))):
        with pytest.raises(ValueError, match="uint8"):
            degrade(image, "noise_gaussian", 1, rng(0))


# Operators by hand


def row_of(*values: int) -> np.ndarray:
    return np.repeat(np.array(values, np.uint8)[None, :, None], 3, axis=2)


@pytest.mark.parametrize(
    ("name", "level", "expected", "reason"),
    [
        ("darken_scale", 1, [0, 1, 48, 75, 191], "0.75 of 1 is 0.75, of 64 48, of 255 191.25"),
        ("darken_shift", 1, [0, 0, 39, 75, 230], "25 less, and no less than black"),
        ("darken_value", 1, [0, 0, 39, 75, 230], "the same where all three are equal"),
        ("darken_gamma", 2, [0, 0, 18, 43, 255], "255 (64/255)^1.9 is 18.47, 255 (100/255)^1.9 43.07"),
    ],
)
def test_darkening_agrees_with_values_worked_by_hand(name, level, expected, reason):
    assert made(row_of(0, 1, 64, 100, 255), name, level)[0, :, 0].tolist() == expected, reason


def test_an_exposure_halves_the_light():
    # sRGB 188 is 0.503 of white's light, 255 all of it; 0.9 stops leave 0.536 of that: 0.2696 and 0.5359, which are
    # 1.055 x^(1/2.4) - 0.055 = 0.5564 and 0.7584 of white.
    assert made(row_of(188, 255), "darken_exposure", 1)[0, :, 0].tolist() == [142, 193]


def test_a_darker_value_keeps_hue_and_saturation():
    colour = np.array([[[200, 100, 50]]], np.uint8)
    # The value is 200, 25 less are 175: seven eighths of each.
    assert made(colour, "darken_value", 1).tolist() == [[[175, 88, 44]]]
    assert made(colour, "darken_shift", 1).tolist() == [[[175, 75, 25]]]


@pytest.mark.parametrize("level", LEVELS)
def test_gaussian_noise_has_the_deviation_of_its_level(level):
    std = OPERATORS["noise_gaussian"].strengths["std"][level - 1]
    if 3 * std < 128:  # else it is clipped at black and white
        found = made(grey(128), "noise_gaussian", level, level).astype(float) - 128
        assert found.std() == pytest.approx(std, rel=0.02)
        assert found.mean() == pytest.approx(0, abs=0.5)


def test_noise_in_luma_and_chroma_has_these_deviations_there():
    found = made(grey(128, 300), "noise_ycbcr", 2, 0).astype(float) - 128
    red, green, blue = np.moveaxis(found, -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    assert luma.std() == pytest.approx(9, rel=0.02)
    assert ((blue - luma) / 1.772).std() == pytest.approx(15, rel=0.02)
    assert ((red - luma) / 1.402).std() == pytest.approx(15, rel=0.02)


def test_speckle_grows_with_the_value():
    for value in (40, 80, 120):
        assert made(grey(value), "noise_speckle", 2, 0).std() == pytest.approx(0.15 * value, rel=0.02)
    assert not made(grey(0), "noise_speckle", 5, 0).any()


@pytest.mark.parametrize("level", LEVELS)
def test_impulses_are_as_many_as_they_should_be_half_of_them_black(level):
    image = made(grey(128, 400), "noise_impulse", level, level)
    share = OPERATORS["noise_impulse"].strengths["share"][level - 1]
    error = 5 * np.sqrt(share / image[..., 0].size)  # five standard errors
    assert (image != 128).any(axis=2).mean() == pytest.approx(share, abs=error)
    assert (image == 0).all(axis=2).mean() == pytest.approx(share / 2, abs=error)
    assert (image == 255).all(axis=2).mean() == pytest.approx(share / 2, abs=error)


def test_shot_noise_has_the_variance_of_its_photons():
    # 100 photons at white: 50.2 at 128, whose root is 7.08 photons of 2.55 grey values.
    image = made(grey(128, 300), "noise_poisson", 2, 0)
    assert image.std() == pytest.approx(7.08 * 2.55, rel=0.02)
    assert image.mean() == pytest.approx(128, abs=0.5)


def test_neighbours_of_correlated_noise_are_alike():
    found = made(grey(128, 300), "noise_correlated", 2, 0).astype(float) - 128
    assert found.std() == pytest.approx(9, rel=0.02)
    # Smoothed by a Gaussian twice over, at a distance of one: exp(-1 / (4 * 1.2^2)) = 0.84.
    assert np.corrcoef(found[:, 1:].ravel(), found[:, :-1].ravel())[0, 1] == pytest.approx(0.84, abs=0.02)


@pytest.mark.parametrize(("name", "level"), [cell for cell in CELLS if OPERATORS[cell[0]].distortion == "blur"])
def test_blur_leaves_a_plain_image_alone(name, level):
    np.testing.assert_allclose(made(grey(77, 40), name, level, 0), 77, atol=1)


def dot(side: int = 61) -> np.ndarray:
    image = grey(0, side)
    image[side // 2, side // 2] = 255
    return image


def test_a_dot_under_a_lens_is_a_disk():
    # Of radius 2: one pixel and its neighbours count whole, those beside the corners by what is within 2.5.
    spread = made(dot(), "blur_lens", 2)[28:33, 28:33, 0].astype(float)
    corner = 0.0  # 2.83 pixels away
    knight = 2.5 - np.sqrt(5)
    weights = np.array([[corner, knight, 0.5], [knight, 1, 1], [0.5, 1, 1]])
    whole = np.block([[weights, weights[:, 1::-1]], [weights[1::-1], weights[1::-1, 1::-1]]])
    np.testing.assert_allclose(spread, 255 * whole / whole.sum(), atol=0.51)


def test_a_dot_in_motion_is_a_line_of_its_length():
    function = OPERATORS["blur_motion"].function
    level = function(dot(), rng(0), 7, 0.0)[..., 0]
    assert np.flatnonzero(level.any(axis=1)).tolist() == [30]
    np.testing.assert_allclose(level[30, 27:34], 255 / 7, rtol=0.02)
    assert level.sum() == pytest.approx(255, rel=1e-4)
    upright = function(dot(), rng(0), 7, 90.0)[..., 0]
    np.testing.assert_allclose(upright, level.T, atol=0.02)
    rising = function(dot(), rng(0), 9, 45.0)[..., 0]
    assert rising[28, 32] > 10 and rising[32, 28] > 10  # right above, left below
    assert rising[28, 28] == rising[32, 32] == 0


def test_a_zoom_moves_the_edges_and_not_the_middle():
    rows, columns = np.mgrid[:101, :101]
    stripes = np.repeat((((rows + columns) // 2 % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    change = np.abs(made(stripes, "blur_zoom", 2).astype(float) - stripes).mean(axis=2)
    assert change[48:53, 48:53].mean() < change[:10, :10].mean() / 2


def test_jitter_takes_values_from_nearby_only():
    image = grey(0, 60)
    image[:, 30:] = 255
    changed = (made(image, "blur_jitter", 3, 0) != image).any(axis=(0, 2))
    assert np.flatnonzero(changed).tolist() == [28, 29, 30, 31]  # 2 pixels


def test_a_parameter_that_is_drawn_is_told():
    angles = [degrade(grey(9, 16), "blur_motion", 1, rng(seed))[1]["angle"] for seed in range(200)]
    assert 0 <= min(angles) < 10 and 170 < max(angles) <= 180
    assert degrade(grey(9, 16), "noise_ycbcr", 2, rng(0))[1] == {"luma": 9, "chroma": 15}
