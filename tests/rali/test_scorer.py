"""The files of a fitted RALI, and ``RaliScorer``: the call of ``Scorer``, batches, hostile images and files."""

import inspect
import json
import math
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from image_builders import RGB, chunk, noise, oriented, png_of, saved, smooth
from PIL import Image, ImageFile
from rali_builders import picture, save_tiny_rali, tiny_encoder_folder, tiny_rali
from safetensors.torch import load_file, save_file

from omniq_verl import Scorer
from omniq_verl.data.images import check_image
from omniq_verl.rali import RaliScorer
from omniq_verl.rali.checkpoint import About, BadRaliFile, load_rali, save_rali
from omniq_verl.scoring.image_inputs import load_source
from omniq_verl.tasks import Scale


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory) -> Path:
    return tiny_encoder_folder(tmp_path_factory.mktemp("encoder") / "clip")


@pytest.fixture(scope="module")
def folder(encoder_folder, tmp_path_factory) -> Path:
    return save_tiny_rali(tmp_path_factory.mktemp("rali") / "fitted", encoder_folder)


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def scorer(folder) -> RaliScorer:
    return RaliScorer(folder, "cpu", batch=4)


PICTURES = [picture(seed, 30 + 7 * seed, 50 + 3 * seed, "JPEG" if seed % 2 else "PNG") for seed in range(11)]


def test_the_same_call_as_scorer():
    for name in ("score", "batches"):
        theirs, ours = (list(inspect.signature(getattr(one, name)).parameters) for one in (Scorer, RaliScorer))
        assert theirs == ours


def test_a_score_is_equation_3_of_the_embedding(scorer, folder):
    model, _ = load_rali(folder)
    pixels = model.encoder.preprocessing(PICTURES[0])
    embedding = model.encoder(torch.from_numpy(pixels[None]))[0].detach().numpy().astype(float)
    state = {name: tensor.numpy().astype(float) for name, tensor in model.basis.state_dict().items()}
    inside = state["projection_DM"].T @ embedding
    cosines = [inside @ mu / np.linalg.norm(inside) / np.linalg.norm(mu) for mu in state["vectors_KM"]]
    weights = np.exp(cosines) / np.exp(cosines).sum()
    found = scorer.score(PICTURES[0])
    assert found.score == pytest.approx(float(weights @ state["scores_K"]), abs=1e-5)
    assert (found.status, found.task, found.parsed, found.answers) == ("ok", "technical", 1, 1)
    assert (found.reasoning, found.answer, found.std) == (None, "", None)


def test_a_score_in_a_batch_is_the_score_alone(scorer, folder):
    together = [one.score for one in scorer.score(PICTURES)]
    alone = [scorer.score(data).score for data in PICTURES]
    in_other_batches = [one.score for one in RaliScorer(folder, "cpu", batch=3).score(PICTURES[::-1])][::-1]
    assert together == pytest.approx(alone, abs=1e-5) and together == pytest.approx(in_other_batches, abs=1e-5)
    assert np.ptp(together) > 0.01, "the pictures should differ"


def test_every_form_of_one_image_gets_the_same_score(scorer, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    file = tmp_path / "x.png"
    Image.fromarray(pixels).save(file)
    found = scorer.score([file, str(file), file.read_bytes(), Image.fromarray(pixels), pixels])
    assert len({round(one.score, 5) for one in found}) == 1
    assert [one.image for one in found[1:3]] == [str(file), "image 2"]
    assert scorer.score(pixels).score == pytest.approx(found[0].score, abs=1e-5)
    assert scorer.score([]) == []


FORMS = {
    "JPEG": lambda: saved(smooth(90, 120), "JPEG"),
    "grey JPEG": lambda: saved(smooth(90, 120)[..., 0], "JPEG"),
    "JPEG on its side": lambda: saved(smooth(90, 120), "JPEG", exif=oriented(6)),
    "PNG": lambda: saved(noise(45, 61), "PNG"),
    "PNG with alpha": lambda: saved(noise(45, 61, 4), "PNG"),
    "TIFF": lambda: saved(noise(45, 61), "TIFF"),
    "a PIL image": lambda: Image.fromarray(noise(45, 61, 4)),
    "an array": lambda: noise(45, 61),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_is_decoded_once_to_the_pixels_training_has(scorer, form, monkeypatch):
    source, times = FORMS[form](), []
    row = load_source(source)
    of_training = scorer.model.encoder.preprocessing(row)
    prepare = ImageFile.ImageFile.load_prepare
    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", lambda image: (times.append(1), prepare(image)))
    np.testing.assert_array_equal(scorer._load(source), of_training)
    assert len(times) == isinstance(source, bytes)  # what is in memory is not written to a file and read back


def test_damage_that_only_decoding_finds_is_a_bad_image(scorer):
    rows = zlib.compress(b"\0" * 37 * 12)[:-8] + bytes(8)
    data = png_of(12, 12, 8, RGB, b"", chunk(b"IDAT", rows))
    assert check_image(data) is data, "its structure is sound"
    bad, good = scorer.score([data, PICTURES[0]])
    assert (bad.status, good.status) == ("bad_image", "ok") and "it does not decode" in bad.error


def test_bad_images_are_named_and_the_others_scored(scorer, tmp_path):
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    bad = [b"broken", tmp_path / "bomb.png", "/no/such.png", 3.5, PICTURES[0][:300], "http://localhost:1/x", b""]
    mixed = [PICTURES[0], *bad, PICTURES[1]]
    found = scorer.score(mixed)
    assert [one.status for one in found] == ["ok", *["bad_image"] * 7, "ok"]
    assert all(one.error and one.score is None for one in found[1:-1]) and found[3].image == "/no/such.png"
    expected = [scorer.score(data).score for data in PICTURES[:2]]
    assert [found[0].score, found[-1].score] == pytest.approx(expected, abs=1e-5)
    assert [one.status for one in scorer.score([b"", b"x"])] == ["bad_image"] * 2


def test_tasks_and_samples(scorer):
    (one,) = scorer.score([PICTURES[0]], task=["technical"])
    assert one["technical"].score == scorer.score(PICTURES[0], task="technical", prompt="a cat").score
    for wrong in ({"task": "aesthetic"}, {"task": ["technical", "aesthetic"]}, {"samples": 2}):
        with pytest.raises(ValueError):
            scorer.score(PICTURES[0], **wrong)


def test_another_scale_is_a_straight_line(scorer):
    own, hundred = scorer.score(PICTURES[0]), scorer.score(PICTURES[0], scale=Scale(0, 100))
    assert hundred.score == pytest.approx((own.score - 1) * 25) and hundred.level == own.level


def test_levels_of_scores_beyond_the_scale_and_of_none(scorer):
    scale = Scale(1.0, 5.0)
    assert scorer._to_score("x", 5.4, scale).level == "excellent" and scorer._to_score("x", 5.4, scale).score == 5.4
    assert scorer._to_score("x", -2.0, scale).level == "bad"
    assert scorer._to_score("x", math.nan, scale).status == "error"


def test_what_is_saved_is_loaded(encoder_folder, tmp_path):
    model = tiny_rali(encoder_folder)
    save_rali(tmp_path, model, About("aesthetic", Scale(0, 10), {"seed": 3}))
    found, about = load_rali(tmp_path)
    assert about == About("aesthetic", Scale(0, 10), {"seed": 3})
    ours, theirs = model.state_dict(), found.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rali.json", "rali.safetensors"]


def test_a_siglip_is_saved_and_scores(tmp_path):
    siglip = tiny_encoder_folder(tmp_path / "siglip", "siglip")
    found = RaliScorer(save_tiny_rali(tmp_path / "rali", siglip), "cpu").score(PICTURES[:3])
    model = tiny_rali(siglip)
    pixels = np.stack([model.encoder.preprocessing(data) for data in PICTURES[:3]])
    assert [one.score for one in found] == pytest.approx(model(torch.from_numpy(pixels)).tolist(), abs=1e-5)


def test_the_same_model_gives_the_same_files(encoder_folder, tmp_path):
    for name in ("a", "b"):
        save_rali(tmp_path / name, tiny_rali(encoder_folder), About("technical", Scale(1, 5)))
    for file in ("rali.json", "rali.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_half_precision_halves_the_file(encoder_folder, tmp_path, folder, scorer):
    save_rali(tmp_path, tiny_rali(encoder_folder), About("technical", Scale(1, 5)), torch.bfloat16)
    assert (tmp_path / "rali.safetensors").stat().st_size < 0.7 * (folder / "rali.safetensors").stat().st_size
    whole = [one.score for one in scorer.score(PICTURES[:4])]
    assert [one.score for one in RaliScorer(tmp_path, "cpu").score(PICTURES[:4])] == pytest.approx(whole, abs=0.1)
    half = RaliScorer(folder, "cpu", dtype="bfloat16").score(PICTURES[:4])
    assert [one.score for one in half] == pytest.approx(whole, abs=0.2)


def change(folder: Path, *keys: str, to: object) -> None:
    config = json.loads((folder / "rali.json").read_text())
    ref = config
    for key in keys[:-1]:
        ref = ref[key]
    ref[keys[-1]] = to
    (folder / "rali.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["format"], "other"),
        (["version"], 2),
        (["version"], None),
        (["task"], "beauty"),
        (["task"], ["technical"]),
        (["scale"], {"low": 5, "high": 1}),
        (["scale"], "1 to 5"),
        (["encoder", "kind"], "resnet"),
        (["encoder", "config"], []),
        (["encoder", "config", "attn_implementation"], "somebody/code"),
        (["encoder", "config", "auto_map"], {"AutoModel": "code.Model"}),
        (["encoder", "config", "quantization_config"], {"quant_method": "gptq"}),
        (["encoder", "config", "hidden_act"], "no such thing"),
        (["encoder", "config", "image_size"], 64),
        (["encoder", "config", "hidden_size"], 33),
        (["encoder", "config", "hidden_size"], "many"),
        (["encoder", "config", "num_hidden_layers"], 3),
        (["encoder", "config", "num_hidden_layers"], 10**9),
        (["preprocessing", "side"], 10**9),
        (["preprocessing", "mean"], [0]),
        (["preprocessing", "extra"], 1),
        (["basis", "vectors"], 7),
        (["basis", "vectors"], 10**15),
        (["basis", "vectors"], -1),
        (["basis", "dimensions"], 10**15),
        (["basis", "temperature"], 0),
        (["basis", "temperature"], "warm"),
        (["source"], 3),
    ],
    ids=str,
)
def test_configurations_that_do_not_fit_are_rejected(copy, keys, value):
    change(copy, *keys, to=value)
    with pytest.raises(BadRaliFile):
        load_rali(copy)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000, "\0" * 10, "x" * (2**20 + 1)], ids=lambda t: t[:4])
def test_what_is_no_configuration_is_rejected(copy, text):
    (copy / "rali.json").write_text(text)
    with pytest.raises(BadRaliFile):
        load_rali(copy)


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(folder / "rali.safetensors") | changes
    save_file({name: one for name, one in tensors.items() if one is not None}, folder / "rali.safetensors")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"basis.scores_K": torch.tensor([math.nan] * 6)}, "finite"),
        ({"basis.vectors_KM": torch.full((6, 5), math.inf)}, "finite"),
        ({"basis.scores_K": torch.zeros(6, dtype=torch.int64)}, "finite"),
        ({"basis.scores_K": torch.zeros(5)}, r"found \[5\], expected \[6\]"),
        ({"basis.scores_K": None}, "found nothing"),
        ({"basis.more": torch.zeros(2)}, "expected nothing"),
        ({"encoder.visual_projection.weight": torch.zeros(16, 31)}, r"found \[16, 31\]"),
    ],
    ids=["nan", "inf", "whole", "short", "missing", "more", "encoder"],
)
def test_weights_that_do_not_fit_are_rejected(copy, changes, said):
    rewrite(copy, **changes)
    with pytest.raises(BadRaliFile, match=said):
        load_rali(copy)


def test_files_cut_short_missing_or_of_another_kind_are_rejected(copy, tmp_path):
    whole = (copy / "rali.safetensors").read_bytes()
    for data in (whole[: len(whole) // 2], whole[:7], b"", b"\x80\x04cos\nsystem\n."):
        (copy / "rali.safetensors").write_bytes(data)
        with pytest.raises(BadRaliFile, match="cannot be read"):
            load_rali(copy)
    (copy / "rali.safetensors").unlink()
    with pytest.raises(BadRaliFile, match="cannot be read"):
        load_rali(copy)
    with pytest.raises(BadRaliFile, match="Fix"):
        load_rali(tmp_path / "gone")


def test_settings_of_the_scorer_are_checked(folder):
    for wrong in ({"dtype": "int8"}, {"batch": 0}):
        with pytest.raises(ValueError):
            RaliScorer(folder, "cpu", **wrong)


@pytest.mark.slow
def test_a_compiled_scorer_agrees(scorer, folder):
    compiled = RaliScorer(folder, "cpu", batch=4, compile=True).score(PICTURES)
    eager = scorer.score(PICTURES)
    assert [one.score for one in compiled] == pytest.approx([one.score for one in eager], abs=1e-4)
