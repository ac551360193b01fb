"""Contrastive alignment of a tiny CLIP: what is trained, the losses, restarts, several processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rali_builders import make_tiny_pairs, same_weights, tiny_encoder_folder, write_labelled
from rich.console import Console
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from omniq_verl.data.row_refs import list_rows
from omniq_verl.generation.store import OtherConfig
from omniq_verl.rali.align import AlignConfig, align, order_of, prepare_encoder, read_metrics, trained_parameters
from omniq_verl.rali.encoder import ImageEncoder, encoder_of, open_model, open_preprocessing
from omniq_verl.rali.losses import sigmoid_loss, softmax_loss
from omniq_verl.rali.pairs import read_pairs
from omniq_verl.rali.pixels import cached_pixels
from omniq_verl.rali.preprocessing import Preprocessing
from omniq_verl.rali.texts import Texts

REPO, QUIET = Path(__file__).parents[2], Console(quiet=True)
SMALL = {"epochs": 2, "batch": 8, "learning_rate": 1e-3, "precision": "fp32", "save_every": 2}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return tiny_encoder_folder(tmp_path_factory.mktemp("model") / "clip")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    data = write_labelled(folder / "train.parquet", [1 + n / 10 for n in range(40)])
    return make_tiny_pairs(data, folder / "run")


def run(clip: Path, pairs: Path, out: Path, **settings) -> dict[str, torch.Tensor]:
    found = align(AlignConfig(pairs, out, str(clip), **{**SMALL, **settings}), QUIET)
    return load_file(found / "model.safetensors")


@pytest.fixture(scope="module")
def aligned(clip, pairs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("aligned") / "run"
    run(clip, pairs, out)
    return out


def test_losses_by_hand():
    same = torch.eye(2, dtype=torch.bool)
    logits = torch.tensor([[2.0, 0], [0, 1]])
    rows = (np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2
    assert softmax_loss(logits, same).item() == pytest.approx(rows)  # columns are the same
    apart = [np.log1p(np.exp(-x)) for x in (2, 1)] + [np.log(2)] * 2
    assert sigmoid_loss(logits, same).item() == pytest.approx(sum(apart) / 2)
    # The text of both images is one: either is right, so the best is to say half.
    assert softmax_loss(torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool)).item() == pytest.approx(np.log(2))


def test_with_texts_that_differ_it_is_clips_own_loss():
    logits = torch.randn(7, 7, generator=torch.Generator().manual_seed(0))
    assert softmax_loss(logits, torch.eye(7, dtype=torch.bool)).item() == pytest.approx(
        image_text_contrastive_loss(logits).item()
    )


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_how_many_numbers_are_trained(kind, tmp_path):
    folder = str(tiny_encoder_folder(tmp_path / kind, kind))
    model = open_model(folder).requires_grad_(False)
    encoder = prepare_encoder(encoder_of(model, open_preprocessing(folder)), checkpointing=False)
    vision = sum(one.numel() for one in model.vision_model.parameters())
    if kind == "clip":
        # Two layers of 32 with an MLP of 32: 2 * (4 * (32 * 32 + 32) + 2 * (32 * 32 + 32) + 4 * 32), two norms, class,
        # 16 patches and one place for the class, filters of 8 * 8 * 3; and the projection to 16.
        assert vision == 2 * (6 * (32 * 32 + 32) + 4 * 32) + 4 * 32 + 32 + 17 * 32 + 32 * 192
        vision += 16 * 32
    assert sum(one.numel() for one in trained_parameters(encoder)) == vision
    assert sum(one.numel() for one in model.parameters() if one.requires_grad) == vision


def test_of_the_papers_encoder_304_million_numbers_are_trained():
    # OpenAI's CLIP ViT-L/14-336: 1,024 wide, 24 layers, 577 places, to 768.
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    config = CLIPVisionConfig(**sizes, image_size=336, patch_size=14, projection_dim=768)
    with torch.device("meta"):
        vision = CLIPVisionModelWithProjection(config)
    encoder = ImageEncoder("clip", vision, Preprocessing(336, True, (0.5,) * 3, (0.5,) * 3))
    layer = 4 * (1024 * 1024 + 1024) + (2 * 1024 * 4096 + 4096 + 1024) + 4 * 1024
    around = 1024 * 14 * 14 * 3 + 1024 + 577 * 1024 + 4 * 1024 + 1024 * 768
    count = sum(one.numel() for one in trained_parameters(prepare_encoder(encoder, checkpointing=True)))
    assert count == 24 * layer + around == 304_293_888


def test_the_image_encoder_changes_and_nothing_else(clip, aligned):
    before, after = load_file(clip / "model.safetensors"), load_file(aligned / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        frozen = name.startswith(("text_", "logit_"))
        assert torch.equal(tensor, after[name]) == frozen, name


def test_the_loss_falls_and_the_folder_is_an_ordinary_one(clip, pairs, tmp_path):
    run(clip, pairs, tmp_path, epochs=12)
    steps = read_metrics(tmp_path)
    assert [one["step"] for one in steps] == list(range(60))
    first, last = (np.mean([one["loss"] for one in part]) for part in (steps[:5], steps[-5:]))
    assert last < first - 0.1 and set(steps[0]) == {"key", "step", "loss", "accuracy", "gradient"}
    assert open_preprocessing(str(tmp_path / "model")).side == 32
    assert not list(tmp_path.glob("*.npy")) and not list(tmp_path.glob("*.safetensors"))


def test_the_same_seed_gives_the_same_bytes(clip, pairs, aligned, tmp_path):
    run(clip, pairs, tmp_path / "again")
    files = [out / "model" / "model.safetensors" for out in (aligned, tmp_path / "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    other = run(clip, pairs, tmp_path / "other", seed=1)
    assert not same_weights(other, load_file(files[0]))


def test_checkpointing_changes_nothing_and_bf16_little(clip, pairs, aligned, tmp_path):
    whole = load_file(aligned / "model" / "model.safetensors")
    less_memory = run(clip, pairs, tmp_path / "checkpointing", checkpointing=True)
    half = run(clip, pairs, tmp_path / "half", precision="bf16")
    for name, tensor in whole.items():
        assert torch.allclose(less_memory[name], tensor, atol=1e-6)
        assert half[name].dtype == torch.float32
    losses = [[one["loss"] for one in read_metrics(out)] for out in (aligned, tmp_path / "half")]
    assert losses[1] == pytest.approx(losses[0], abs=0.05) and losses[0] != losses[1]


def test_a_siglip_is_aligned_by_its_own_loss(pairs, tmp_path):
    siglip = tiny_encoder_folder(tmp_path / "siglip", "siglip")
    after = run(siglip, pairs, tmp_path / "run", epochs=1)
    before = load_file(siglip / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("vision_model") for name in changed)


def test_every_epoch_shows_each_image_once_with_one_of_its_texts(clip):
    texts = Texts(open_model(str(clip)), str(clip), [["a", "b", "c"], ["d"], ["b", "e"]], torch.device("cpu"))
    assert texts.features.shape == (5, 16) and texts.features.norm(dim=1).tolist() == pytest.approx([1] * 5)
    order, random = order_of(3, 100, seed=0)
    assert sorted(order) == list(range(100)) and random.min() >= 0 and random.max() < 1
    assert all((one == again).all() for one, again in zip(order_of(3, 100, 0), (order, random), strict=True))
    assert not (order == order_of(4, 100, 0)[0]).all()
    drawn = [texts.draw(np.array([0, 1, 2]), np.array([share] * 3)).tolist() for share in (0, 0.4, 0.99)]
    assert drawn == [[0, 3, 1], [1, 3, 1], [2, 3, 4]]  # "b" of the first and of the third image is one text


def test_long_texts_are_cut_and_counted(clip):
    long = "noise and blur " * 60
    texts = Texts(open_model(str(clip)), str(clip), [[long], [long + " at the end"], ["short"]], torch.device("cpu"))
    assert (texts.cut, texts.most_tokens) == (2, 77)
    assert torch.equal(texts.features[0], texts.features[1]), "the ends are not seen"


def test_other_settings_or_pairs_are_rejected(clip, pairs, aligned, tmp_path):
    with pytest.raises(OtherConfig, match=f"learning_rate.*delete {aligned}$"):  # the old model lies there, too
        run(clip, pairs, aligned, learning_rate=1e-4)
    data = write_labelled(tmp_path / "train.parquet", [1.0, 2.0, 3.0])
    with pytest.raises(OtherConfig, match="pairs"):
        run(clip, make_tiny_pairs(data, tmp_path / "run"), aligned)


def test_pixels_are_those_of_the_rows_the_file_and_the_preprocessing(tmp_path):
    data, other = (write_labelled(tmp_path / name, [1.0] * 5) for name in ("a.parquet", "b.parquet"))
    refs, small = list_rows([data]), Preprocessing(8, True, (0.5,) * 3, (0.5,) * 3)
    (tmp_path / "pixels.npy").write_bytes(b"of an older version")
    first = np.array(cached_pixels(refs, small, tmp_path))
    assert first.shape == (5, 8, 8, 3) and (cached_pixels(refs, small, tmp_path) == first).all()
    assert (cached_pixels(refs[1:3], small, tmp_path) == first[1:3]).all()
    assert (cached_pixels(refs[:2], replace(small, side=9), tmp_path)).shape == (2, 9, 9, 3)
    write_labelled(data, [1.0] * 5, first=3)
    assert (cached_pixels(refs, small, tmp_path)[:2] == first[3:]).all()
    assert len(list(tmp_path.glob("pixels*"))) == 1, "the files of other pixels are gone"
    other.unlink()
    with pytest.raises(ValueError, match=r"b\.parquet cannot be read .*Fix: run omniq rali pairs"):
        cached_pixels([replace(ref, file=str(other)) for ref in refs], small, tmp_path)


def test_a_start_that_ended_before_its_first_step_leaves_no_pixels_to_other_pairs(clip, pairs, tmp_path):
    cached_pixels([ref for ref, _ in read_pairs(pairs)], open_preprocessing(str(clip)), tmp_path / "out")
    data = write_labelled(tmp_path / "train.parquet", [1 + n / 10 for n in range(12)])
    few = make_tiny_pairs(data, tmp_path / "run")
    assert same_weights(run(clip, few, tmp_path / "out"), run(clip, few, tmp_path / "new"))


@pytest.mark.parametrize(
    "wrong", [{"precision": "fp8"}, {"epochs": 0}, {"batch": 1}, {"texts": 0}, {"learning_rate": 0}, {"save_every": 0}]
)
def test_settings_out_of_range_are_rejected(wrong):
    with pytest.raises(ValueError):
        AlignConfig(Path("p"), Path("o"), **wrong)


def test_one_image_is_too_few(clip, tmp_path):
    data = write_labelled(tmp_path / "train.parquet", [1.0])
    with pytest.raises(ValueError, match="has 1 images"):
        run(clip, make_tiny_pairs(data, tmp_path / "run"), tmp_path / "out")


def words(clip: Path, pairs: Path, out: Path, epochs: int) -> list[str]:
    settings = ["--epochs", str(epochs), "--batch", "8", "--learning-rate", "1e-3", "--precision", "fp32"]
    return ["align", "--pairs", str(pairs), "--out", str(out), "--model", str(clip), *settings, "--save-every", "2"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO / "tests" / "builders"), str(REPO)])}


@pytest.mark.slow
def test_killed_it_goes_on_to_the_very_same_weights(clip, pairs, tmp_path):
    undisturbed = run(clip, pairs, tmp_path / "undisturbed", epochs=40)
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "omniq_verl.rali.cli", *words(clip, pairs, out, epochs=40)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "checkpoint.safetensors").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(read_metrics(out))
    assert not (out / "model").exists() and 0 < done < 200
    assert same_weights(run(clip, pairs, out, epochs=40), undisturbed)
    assert [one["step"] for one in read_metrics(out)] == list(range(200))
    assert run(clip, pairs, out, epochs=40).keys() == undisturbed.keys()  # and once more: there is nothing to do


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one(clip, pairs, aligned, tmp_path):
    command = [sys.executable, "-m", "omniq_verl.rali.cli", *words(clip, pairs, tmp_path / "two", epochs=2)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # What torchrun sets, without its agent, which asks the host for its name.
    shared = {**environment(), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    processes = [subprocess.Popen(command, env=rank, stdout=subprocess.DEVNULL) for rank in ranks]
    assert [process.wait(240) for process in processes] == [0, 0]
    one, two = (load_file(out / "model" / "model.safetensors") for out in (aligned, tmp_path / "two"))
    off = {name: (one[name] - two[name]).abs().max().item() for name in one}
    # A key's bias moves all of a row's attention alike: its gradient is rounding, and Adam makes steps of that.
    assert max(value for name, value in off.items() if "k_proj.bias" not in name) < 1e-4, off
    for mine, theirs in zip(read_metrics(aligned), read_metrics(tmp_path / "two"), strict=True):
        assert [theirs[key] for key in ("loss", "gradient")] == pytest.approx(
            [mine["loss"], mine["gradient"]], rel=1e-4
        )
