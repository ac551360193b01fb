"""Arrays and tensors become images exactly, or are rejected by name: dtypes, ranges, layouts, devices, batches."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from image_builders import noise
from PIL import Image
from serving_builders import app, listening
from torchvision.transforms.functional import pil_to_tensor, to_tensor

from omniq_verl.data.arrays import image_from
from omniq_verl.data.images import BadImage
from omniq_verl.serving.reward_client import ServerReward, lossless

BYTES = np.arange(3 * 16 * 16).astype(np.uint8).reshape(16, 16, 3)
"""Each of the 256 bytes three times."""
CHW = torch.from_numpy(BYTES).permute(2, 0, 1)
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def pixels(source, value_range=None) -> np.ndarray:
    return np.asarray(image_from(source, value_range))


def why(source, value_range=None) -> str:
    with pytest.raises(BadImage) as caught:
        image_from(source, value_range)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    return str(caught.value)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("once", [True, False], ids=["rounded once", "computed in the dtype"])
def test_a_byte_comes_back_from_floats_of_every_dtype(dtype, once):
    unit = (CHW.double() / 255).to(dtype) if once else CHW.to(dtype) / 255
    np.testing.assert_array_equal(pixels(unit), BYTES)
    both = (CHW.double() / 127.5 - 1).to(dtype) if once else CHW.to(dtype) / 255 * 2 - 1
    np.testing.assert_array_equal(pixels(both, (-1, 1)), BYTES)
    np.testing.assert_array_equal(pixels(CHW.to(dtype), (0, 255)), BYTES)


def test_what_bfloat16_cannot_hold_ends_on_a_neighbour():
    """As documented: values between two bytes are beyond its steps above one half."""
    halves = (torch.arange(128, 255).repeat(3 * 16).reshape(3, 16, -1) + 0.6) / 255
    exact, rounded = pixels(halves).astype(int), pixels(halves.bfloat16()).astype(int)
    assert (exact != rounded).any() and abs(exact - rounded).max() == 1


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1"])
def test_torchvisions_tensors_of_an_image_are_the_image(mode):
    image = Image.fromarray(noise(16, 20, 4)).convert(mode)
    for tensor in (to_tensor(image), pil_to_tensor(image)):
        if mode == "1" and tensor.dtype == torch.uint8:
            continue  # it holds 0 and 1, which are two nearly black bytes
        found = np.asarray(image_from(tensor).convert("RGBA"))
        np.testing.assert_array_equal(found, np.asarray(image.convert("RGBA")))


def test_whole_numbers():
    for dtype in (torch.int16, torch.int32, torch.int64):
        np.testing.assert_array_equal(pixels(CHW.to(dtype)), BYTES)
        for wrong in (-1, 256):
            values = CHW.to(dtype)
            values[0, 3, 3] = wrong
            assert "whole numbers are 0 to 255" in why(values)
        assert "no agreed range" in why(CHW[0].to(dtype)) and "no agreed range" in why(CHW[:1].to(dtype))
    assert "whole numbers are 0 to 255" in why(torch.full((3, 16, 16), -1, dtype=torch.int8))
    np.testing.assert_array_equal(pixels(CHW[0] > 99), np.where(BYTES[..., 0] > 99, 255, 0))
    np.testing.assert_array_equal(pixels(CHW.to(torch.uint16) * 257), BYTES)


@pytest.mark.parametrize("shape", [(16, 20), (16, 20, 3)])
def test_bytes_in_a_wider_type_are_not_shown_as_black(shape):
    wide = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint16)
    with pytest.raises(BadImage, match=r"16-bit values up to 25\d, and white is 65535. Fix: give them as 8 bits"):
        image_from(wide)
    assert np.asarray(image_from(np.zeros(shape, np.uint16))).max() == 0


@pytest.mark.parametrize(
    ("scale", "shift", "value_range"),
    [
        (2, -1, None),
        (255, 0, None),
        (1.004, 0, None),
        (1, -0.004, None),
        (1, 0.004, None),
        (2, -1, (0, 1)),
        (3, -1, (-1, 1)),
    ],
)
@pytest.mark.parametrize("dtype", FLOATS[:3])
def test_values_beyond_the_range_are_rejected_and_the_fix_named(scale, shift, value_range, dtype):
    values = (CHW.double() / 255 * scale + shift).to(dtype)
    assert "values from" in (said := why(values, value_range)) and "Fix:" in said


def test_what_rounds_to_an_end_is_the_end():
    values = (CHW.double() / 255 * 1.0000004 - 0.0000002).float()
    assert values.max() > 1 and values.min() < 0
    np.testing.assert_array_equal(pixels(values), BYTES)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", FLOATS)
def test_values_that_are_no_numbers_are_rejected(bad, dtype):
    values = (CHW / 255).to(dtype)
    values[1, 2, 3] = bad
    for value_range in (None, (-1, 1), (0, 255)):
        assert "1 of 768 values are NaN or infinite" in why(values, value_range)


def test_arrays_of_floats_need_a_stated_range():
    unit = (BYTES / 255).astype(np.float32)
    assert "no agreed range (float32, shape (16, 16, 3)). Fix:" in why(unit)
    np.testing.assert_array_equal(pixels(unit, (0, 1)), BYTES)
    np.testing.assert_array_equal(pixels(BYTES.astype(np.float64), (0, 255)), BYTES)
    assert "no agreed range" in why(unit[..., 0], (0, 1))


def test_layouts_and_strides():
    wide = noise(12, 40, 3)
    chw = torch.from_numpy(wide.copy()).permute(2, 0, 1)
    for source in (
        wide,
        np.asfortranarray(wide),
        wide[::-1][::-1],
        np.moveaxis(wide, 2, 0),
        wide[None],
        chw,
        chw[None],
        chw.contiguous(),
        chw.permute(1, 2, 0),
        chw.repeat(2, 2, 2)[:3, :12, :40],
        chw.clone().to(memory_format=torch.contiguous_format).requires_grad_(False),
        (chw / 255).requires_grad_() * 1,
        torch.nn.Parameter(chw / 255),
        chw[None].to(memory_format=torch.channels_last),
    ):
        np.testing.assert_array_equal(pixels(source), wide)
    np.testing.assert_array_equal(pixels(wide[:, ::-1]), np.ascontiguousarray(wide[:, ::-1]))
    with_alpha = noise(12, 40, 4)
    np.testing.assert_array_equal(pixels(np.moveaxis(with_alpha, 2, 0)), with_alpha)


REJECTED = {
    "two pictures": (torch.zeros(2, 3, 16, 16), "2 pictures"),
    "none": (torch.zeros(0, 3, 16, 16), "0 pictures"),
    "a film": (torch.zeros(1, 3, 8, 16, 16), "shape"),
    "five channels": (np.zeros((16, 16, 5), np.uint8), "shape"),
    "a list of grey pictures": (np.zeros((16, 20, 24), np.uint8), "shape"),
    "a line": (torch.zeros(300), "shape"),
    "a number": (torch.tensor(1.0), "shape"),
    "empty": (torch.zeros(3, 0, 16), "fewer than 11"),
    "small": (torch.zeros(3, 4, 4), "shape"),
    "too large": (np.broadcast_to(np.uint8(0), (10_000, 10_000)), "more than"),
    "on no device": (torch.zeros(3, 16, 16, device="meta"), "meta device"),
    "sparse": (torch.zeros(3, 16, 16).to_sparse(), "not a plain array"),
    "complex": (torch.zeros(3, 16, 16, dtype=torch.complex64), "complex64"),
    "float8": (torch.zeros(3, 16, 16).to(torch.float8_e4m3fn), "float8"),
    "masked": (np.ma.masked_array(BYTES, BYTES > 9), "mask"),
    "of 128 bits": (np.zeros((16, 16, 3), np.longdouble), "range"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", REJECTED)
def test_what_is_no_image_is_named(kind):
    source, said = REJECTED[kind]
    assert said in why(source)


@pytest.mark.parametrize("value_range", [(1, 0), (0, 0), (0, float("inf")), (0,), "01", 5, (None, 1)])
def test_a_range_is_two_numbers(value_range):
    with pytest.raises(ValueError, match="value_range"):
        image_from(CHW / 255, value_range)
    with pytest.raises(ValueError, match="value_range"):
        ServerReward("http://localhost:1", value_range=value_range)


@given(
    some.integers(0, 2**32 - 1),
    some.sampled_from([1, 2, 3, 4]),
    some.integers(11, 30),
    some.integers(11, 30),
    some.sampled_from(FLOATS),
    some.sampled_from([(0, 1), (-1, 1), (0, 255), (-0.5, 0.5), (10, 11)]),
)
def test_any_bytes_come_back_from_any_range_that_holds_them(seed, channels, height, width, dtype, ends):
    given = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    if dtype in FLOATS[2:] and ends == (10, 11):
        dtype = torch.float32  # steps of half floats near 10 are larger than a byte's
    low, high = ends
    values = (torch.from_numpy(given).double() / 255 * (high - low) + low).to(dtype)
    for source in (values, values.permute(2, 0, 1)):
        np.testing.assert_array_equal(pixels(source, ends).reshape(given.shape), given)


def test_rewards_reject_a_wrong_tensor_by_its_number_and_score_nothing():
    """Before, values outside of [0, 1] were cut off, NaN was black, and all but a batch's first picture left out."""
    good, bad = CHW / 255, CHW / 127.5 - 1
    nan = good.clone()
    nan[0, 0, 0] = float("nan")
    with listening(app()) as url:
        reward = ServerReward(url, "technical")
        for wrong, said in ((bad, "values from -1 to 1"), (nan, "NaN"), (torch.stack([good, good]), "2 pictures")):
            with pytest.raises(ValueError, match=rf"images\[1\]: .*{said}"):
                reward([good, wrong])
        dark, light = torch.zeros(3, 16, 16), torch.ones(3, 16, 16)
        batch = torch.stack([dark, light])
        for images in (
            batch,
            batch.numpy().astype(np.uint8) * 255,
            batch.bfloat16(),
            batch.permute(0, 2, 3, 1),
            [*batch],
        ):
            assert reward(images) == [0.0, 1.0]
        both = ServerReward(url, "technical", value_range=(-1, 1))
        assert both(batch * 2 - 1) == both((batch * 2 - 1).numpy()) == [0.0, 1.0]
        with pytest.raises(TypeError, match=r"one image or a list"):
            reward({"images": batch})
        with pytest.raises(TypeError, match=r"expected a list of images, got one image \(torch\.Tensor\)"):
            reward(dark)


@pytest.mark.parametrize(("dtype", "channels_first"), list(product(FLOATS, (True, False))))
def test_lossless_is_the_rule_of_arrays(dtype, channels_first):
    tensor = CHW.to(dtype) / 255
    tensor = tensor if channels_first else tensor.permute(1, 2, 0)
    np.testing.assert_array_equal(np.asarray(lossless(tensor)), BYTES)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.uint8, *FLOATS])
def test_tensors_on_a_gpu_are_those_of_the_cpu(dtype):
    on_cpu = CHW if dtype == torch.uint8 else (CHW.double() / 255).to(dtype)
    np.testing.assert_array_equal(pixels(on_cpu.cuda()), pixels(on_cpu))
