"""Preprocessing against the processors of transformers, and the image encoder against the whole model."""

import io

import numpy as np
import pytest
import torch
from image_builders import saved, smooth
from PIL import Image
from rali_builders import SIZE, TEXTS, picture, tiny_encoder_folder
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from omniq_verl.rali.encoder import encoder_of, open_encoder, open_model, open_preprocessing
from omniq_verl.rali.preprocessing import Preprocessing, read_preprocessing
from omniq_verl.tiny.clip import build_tokenizer

PROCESSORS = {
    "clip": CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    "siglip": SiglipImageProcessorPil(size={"height": 32, "width": 32}),
}


@pytest.fixture(scope="module", params=["clip", "siglip"])
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return tiny_encoder_folder(tmp_path_factory.mktemp("model") / kind, kind)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (31, 100), (200, 37), (12, 12), (75, 64)])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_pixels_are_those_of_transformers(kind, height, width, form):
    pixels = smooth(height, width)
    data = saved(pixels, form, **({"quality": 90} if form == "JPEG" else {}))
    ours = read_preprocessing(PROCESSORS[kind].to_dict())
    with Image.open(io.BytesIO(data)) as image:
        theirs = PROCESSORS[kind](image, return_tensors="np")["pixel_values"][0]
    mine = (ours(data).transpose(2, 0, 1) / 255 - np.reshape(ours.mean, (3, 1, 1))) / np.reshape(ours.std, (3, 1, 1))
    assert ours(data).dtype == np.uint8 and mine == pytest.approx(theirs, abs=1e-5)


def test_grey_images_have_three_channels():
    ours = read_preprocessing(PROCESSORS["clip"].to_dict())
    found = ours(saved(smooth(40, 50)[..., 0], "PNG"))
    assert found.shape == (32, 32, 3) and (found[..., 0] == found[..., 2]).all()


def test_a_folder_says_how_its_images_are_made(kind, folder):
    found = open_preprocessing(str(folder))
    assert (found.side, found.crop, found.resample) == (32, kind == "clip", 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"do_rescale": False},
        {"do_resize": False},
        {"do_center_crop": False},
        {"rescale_factor": 1 / 127.5},
        {"crop_size": {"height": 30, "width": 30}},
        {"size": {"longest_edge": 32}},
        {"resample": 77},
        {"image_mean": [0.5]},
    ],
    ids=str,
)
def test_processors_that_do_something_else_are_rejected(wrong):
    with pytest.raises(ValueError):
        read_preprocessing(PROCESSORS["clip"].to_dict() | wrong)


def test_embeddings_are_those_of_the_whole_model(kind, folder):
    model, encoder = open_model(str(folder)), open_encoder(str(folder))
    pixels = np.stack([encoder.preprocessing(picture(seed)) for seed in range(3)])
    found = encoder(torch.from_numpy(pixels))
    values = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - encoder.mean) / encoder.std
    theirs = model.get_image_features(pixel_values=values).pooler_output
    assert torch.allclose(found, theirs / theirs.norm(dim=1, keepdim=True), atol=1e-5)
    assert found.shape == (3, encoder.size) and encoder.size == (16 if kind == "clip" else 32)
    assert found.norm(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_the_encoder_shares_the_models_weights(folder):
    model = open_model(str(folder))
    encoder = encoder_of(model, open_preprocessing(str(folder)))
    theirs = {id(parameter) for parameter in model.parameters()}
    assert all(id(parameter) in theirs for parameter in encoder.parameters())
    assert not any(parameter.is_meta for parameter in encoder.parameters())


def test_folders_that_are_no_encoder_are_rejected(tmp_path, folder):
    with pytest.raises(ValueError, match="no such folder"):
        open_encoder(str(tmp_path / "gone"))
    config = (folder / "config.json").read_text()
    other = tmp_path / "pickled"
    other.mkdir()
    (other / "config.json").write_text(config)
    (other / "pytest_model.bin").write_bytes(b"cos\nsystem\n(S'touch bad'\ntR.")
    with pytest.raises(ValueError, match="pickle"):
        open_encoder(str(other))


def test_a_tiny_tokenizer_marks_both_ends_and_cuts_behind_77():
    tokenizer = build_tokenizer(TEXTS, SIZE)
    ids = tokenizer("noise " * 200, truncation=True).input_ids
    assert len(ids) == 77 and ids[-1] == tokenizer.eos_token_id and ids[0] != ids[-1]


def test_sides_and_filters_out_of_range_are_rejected():
    right = {"side": 32, "crop": True, "mean": (0, 0, 0), "std": (1, 1, 1)}
    for wrong in ({"side": 0}, {"side": 10**6}, {"std": (1, 0, 1)}, {"mean": (0, 0)}, {"resample": 9}):
        with pytest.raises(ValueError):
            Preprocessing(**{**right, **wrong})
