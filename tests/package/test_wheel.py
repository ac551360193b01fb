"""The package as a wheel, in a folder without a checkout: what a user installs."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omniq_verl.tiny.model import save_tiny_model

REPO = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """A program that sees nothing of this checkout but what ``environment`` names."""
    words = [str(word) for word in command]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run(
        words, cwd=cwd, env={**kept, **environment}, capture_output=True, text=True, timeout=900, check=False
    )
    assert "Traceback" not in found.stderr, found.stderr
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what git has, so that the checkout stays as it is."""
    source = tmp_path_factory.mktemp("source")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (REPO / name).is_file():
            (source / name).write_bytes((REPO / name).read_bytes())
    return source


def build_wheel(source: Path, out: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, source]
    found = run(*pip, cwd=out)
    assert found.returncode == 0, found.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder before all others on the path of every program, the workers of vLLM and Ray included."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", folder, wheel]
    found = run(*pip, cwd=folder)
    assert found.returncode == 0, found.stderr
    return folder


@pytest.fixture
def omniq(installed, tmp_path):
    def call(*words: object, code: int = 0) -> str:
        command = [sys.executable, "-m", "omniq_verl.cli", *words]
        found = run(*command, cwd=tmp_path, PYTHONPATH=str(installed), VERL_PLATFORM="cpu", COLUMNS="200")
        assert found.returncode == code, found.stdout + found.stderr
        return found.stdout

    return call


def test_a_wheel_has_recipes_scripts_and_nothing_of_the_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name.removeprefix("omniq_verl/") for name in names if name.startswith("omniq_verl/")}
    beside = {
        path.relative_to(REPO).as_posix() for path in [*REPO.glob("recipes/**/*.yaml"), *REPO.glob("data_prep/*.py")]
    }
    assert beside and beside <= inside
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"omniq_verl"}
    data = [
        path
        for path in (REPO / "omniq_verl").rglob("*")
        if path.suffix in (".json", ".html") or path.name == "py.typed"
    ]
    assert {path.relative_to(REPO / "omniq_verl").as_posix() for path in data} <= inside


def test_a_user_of_a_wheel_prepares_checks_and_scores(omniq, installed, tmp_path):
    recipes = installed / "omniq_verl/recipes"
    assert omniq("recipes", "path").strip() == str(recipes)
    assert "quickstart/grpo" in omniq("recipes")
    names, photos = ("a", "b", "c"), tmp_path / "photos"
    photos.mkdir()
    images = [np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8) for seed in range(3)]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(photos / f"{name}.png")
    (tmp_path / "scores.csv").write_text("image,score\n" + "".join(f"{name}.png,{n}\n" for n, name in enumerate(names)))
    made = omniq("data", "manifest", "--root", "photos", "--labels", "scores.csv", "--out", "mine",
                 "--image-column", "image", "--data-source", "mine", "--low", 0, "--high", 2)  # fmt: skip
    assert "mine: 3 rows, 0 rejects" in made
    (train,) = (tmp_path / "mine").glob("train*.parquet")
    save_tiny_model(tmp_path / "model", ["system user assistant How good is this image? <answer>3</answer>"], images, 0)
    said = omniq("doctor", "quickstart/grpo", f"data.train_files={train}", f"data.val_files={train}",
                 "actor_rollout_ref.model.path=model", "trainer.default_local_dir=run", code=1)  # fmt: skip
    assert f"recipe: {recipes / 'quickstart/grpo.yaml'}" in said
    assert "data.train_batch_size=16" in said  # three rows make no batch
    omniq("score", "photos", "--model", "model", "--engine", "hf", "--max-tokens", 4, "--out", "scores.jsonl", code=1)
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == 3  # of an untrained model: no numbers


def test_the_quickstart_of_a_wheel_makes_its_data(installed, tmp_path):
    code = (
        "import subprocess; from pathlib import Path\n"
        "from omniq_verl.packaged import HOME\n"
        "from omniq_verl.pipeline.tiny_stages import Settings, build_stages\n"
        "crops = dict(sft=8, bootstrap=8, train=8, val=8, test=8)\n"
        "data, model, sft, *_ = build_stages(Settings(HOME, Path('run').resolve(), crops=crops))\n"
        "subprocess.run(data.command, check=True); subprocess.run(model.command, check=True)\n"
        "print(sft.command[sft.command.index('--config-dir') + 1])\n"
    )
    found = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert found.stdout.splitlines()[-1] == str(installed / "omniq_verl/recipes"), found.stdout + found.stderr
    assert (tmp_path / "run/model/model.safetensors").is_file()


def test_a_source_distribution_makes_the_same_wheel(source, wheel, tmp_path):
    code = "from setuptools import build_meta; import sys; print(build_meta.build_sdist(sys.argv[1]))"
    name = run(sys.executable, "-c", code, tmp_path, cwd=source).stdout.splitlines()[-1]
    built = build_wheel(tmp_path / name, tmp_path)
    inside = [{name for name in zipfile.ZipFile(one).namelist() if ".dist-info" not in name} for one in (wheel, built)]
    assert inside[0] == inside[1]


def test_an_editable_install_finds_the_checkouts_own_recipes(source, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    made = run(*pip, "--target", tmp_path / "there", "-e", source, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    code = "import site, sys; site.addsitedir(sys.argv[1]); from omniq_verl.packaged import RECIPES; print(RECIPES)"
    found = run(sys.executable, "-S", "-c", code, tmp_path / "there", cwd=tmp_path)  # without the tests' own install
    assert found.stdout.strip() == str(source / "recipes"), found.stderr
