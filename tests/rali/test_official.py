"""The official release of RALI, converted without running anything from it, against the formulas of its demo."""

import io
import os
import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from rali_builders import picture, tiny_encoder_folder
from sklearn.decomposition import PCA, IncrementalPCA
from transformers import CLIPImageProcessor, CLIPModel
from typer.testing import CliRunner

from omniq_verl import RaliScorer
from omniq_verl.cli import app
from omniq_verl.rali.joblib_arrays import BadPickle, read_pca

VECTORS, DIMENSIONS = 7, 5


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """A tiny one, with files of the same kinds as the official one."""
    folder, rng = tmp_path_factory.mktemp("release"), np.random.default_rng(3)
    clip = CLIPModel.from_pretrained(tiny_encoder_folder(folder / "best"))
    features = rng.normal(size=(60, clip.config.projection_dim))
    pca = IncrementalPCA(DIMENSIONS).fit(features + 1.5)
    joblib.dump(pca, folder / "pca.pkl")
    scorer = {
        "pca_scale": torch.tensor(np.sqrt(pca.var_) * rng.choice([-1, 1], len(pca.var_)), dtype=torch.float32),
        "pca_components": torch.tensor(pca.components_, dtype=torch.float32),
        "prototypes": torch.tensor(rng.normal(size=(VECTORS, DIMENSIONS)), dtype=torch.float32),
        "proto_scores": torch.linspace(0.5, 6, VECTORS),
        "logit_scale": torch.tensor(1 / 0.07),
    }
    state = {f"clip.{name}": one for name, one in clip.state_dict().items()}
    torch.save({"state_dict": state | {f"scorer.{name}": one for name, one in scorer.items()}}, folder / "ckpt.pt")
    return folder


def demo(release: Path, image: bytes) -> float:
    """The release's demo, from its equations."""
    clip, pca = CLIPModel.from_pretrained(release / "best"), joblib.load(release / "pca.pkl")
    state = torch.load(release / "ckpt.pt", weights_only=True)["state_dict"]
    part = {name.removeprefix("scorer."): one.double() for name, one in state.items() if name.startswith("scorer.")}
    pixels = CLIPImageProcessor.from_pretrained(release / "best")(
        images=[Image.open(io.BytesIO(image)).convert("RGB")], return_tensors="pt"
    )
    with torch.inference_mode():
        vision = clip.vision_model(**pixels)
        features = clip.visual_projection(vision.pooler_output).double()
    z = ((features - torch.tensor(pca.mean_)) / part["pca_scale"].abs()) @ part["pca_components"].T
    cosines = torch.nn.functional.cosine_similarity(z, part["prototypes"])
    return float((cosines * part["logit_scale"]).softmax(-1) @ part["proto_scores"])


def convert(release: Path, out: Path, scale: str = "1-5"):
    return CliRunner().invoke(app, ["rali", "import", str(release), "--out", str(out), "--scale", scale])


def test_the_converted_release_scores_as_its_demo(release, tmp_path):
    done = convert(release, tmp_path / "rali")
    assert done.exit_code == 0 and f"{VECTORS} basis vectors" in done.output
    assert not [path for path in (tmp_path / "rali").iterdir() if path.suffix in (".pkl", ".pt", ".bin")]
    scorer = RaliScorer(tmp_path / "rali")
    images = [picture(seed) for seed in range(4)]
    found = [one.score for one in scorer.score(images)]
    assert found == pytest.approx([demo(release, image) for image in images], abs=2e-4)
    assert np.ptp(found) > 0.01


@pytest.mark.parametrize("kind", [PCA, IncrementalPCA])
def test_a_pickled_pca_is_read_without_pickle(tmp_path, kind):
    pca = kind(3).fit(np.random.default_rng(0).normal(size=(20, 6)))
    joblib.dump(pca, tmp_path / "pca.pkl")
    found = read_pca(tmp_path / "pca.pkl")
    assert np.array_equal(found["mean_"], pca.mean_) and np.array_equal(found["components_"], pca.components_)


class Attack:
    mark = "attacked"

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(pickle.dumps(Attack())),
        lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n."),
        lambda path: joblib.dump(np.array([Attack()], dtype=object), path),
        lambda path: joblib.dump(PCA(2).fit(np.eye(4)), path, compress=3),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(pickle.dumps([1, 2])),
    ],
    ids=["reduce", "global", "objects", "compressed", "empty", "list"],
)
def test_a_hostile_or_broken_pickle_runs_nothing(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "pca.pkl")
    with pytest.raises(BadPickle, match="Fix: "):
        read_pca(tmp_path / "pca.pkl")
    assert not Path(Attack.mark).exists()


def test_a_checkpoint_with_more_than_tensors_is_not_loaded(release, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    for name in ("best", "pca.pkl"):
        (bad / name).symlink_to(release / name)
    torch.save({"state_dict": {}, "attack": Attack()}, bad / "ckpt.pt")
    done = convert(bad, tmp_path / "out")
    assert done.exit_code == 1 and "holds more than tensors" in " ".join(done.output.split())
    torch.save({"state_dict": {"scorer.prototypes": torch.zeros(2, 2)}}, bad / "ckpt.pt")
    assert "has no valid scorer.pca_scale" in " ".join(convert(bad, tmp_path / "out").output.split())


def test_another_scale_than_its_scores_is_rejected(release, tmp_path):
    done = convert(release, tmp_path / "out", "10-100")
    assert done.exit_code == 1 and "Fix: give their scale" in " ".join(done.output.split())
