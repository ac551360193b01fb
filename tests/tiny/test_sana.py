"""The tiny SANA, real classes with random weights: what it draws, and whole runs with it."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_builders import RATER
from image_builders import smooth
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file
from t2i_builders import CRITIC
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.generation.request import Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.t2i.best_of_n import BestOfN, best_of_n
from omniq_verl.t2i.generator import DiffusersPipeline, GeneratorSpec
from omniq_verl.t2i.geneval import TAGS
from omniq_verl.t2i.image_scorers import ImageScorers
from omniq_verl.t2i.reflection import Reflection, reflect
from omniq_verl.t2i.rewriting import NO_PROMPT, TRUNCATED, ask_for_prompt, read_rewrite

pytest.importorskip("diffusers")
TEXTS = ["a red fox in the snow", "two blue cats on a bench", "three birds above a green field"]
CLOSE = 1
"""Grey levels: an image drawn beside others has its sums in another order."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    from omniq_verl.tiny.sana import save_tiny_sana

    folder = tmp_path_factory.mktemp("models") / "sana"
    assert save_tiny_sana(folder, TEXTS) < 500_000
    return folder


@pytest.fixture(scope="module")
def spec(folder) -> GeneratorSpec:
    return GeneratorSpec(str(folder), steps=2, height=64, width=64)


@pytest.fixture(scope="module")
def pipeline(spec) -> DiffusersPipeline:
    return DiffusersPipeline(spec)


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image.convert("RGB")).astype(int) for image in images])


def pngs(folder: Path) -> dict[Path, np.ndarray]:
    return {path.relative_to(folder): pixels([Image.open(path)]) for path in sorted(folder.rglob("*.png"))}


@pytest.mark.parametrize("part", ["text_encoder", "transformer", "vae"])
@pytest.mark.parametrize("fault", ["missing", "renamed", "cut"])
def test_a_pipeline_whose_weights_are_not_whole_is_rejected(folder, spec, tmp_path, part, fault):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (file,) = (broken / part).glob("*.safetensors")
    tensors = load_file(file)
    name = sorted(tensors)[len(tensors) // 2]
    if fault == "cut":
        file.write_bytes(file.read_bytes()[:-64])
    else:
        value = tensors.pop(name)
        save_file(tensors | ({f"base_model.model.{name}": value} if fault == "renamed" else {}), file)
    with pytest.raises(ValueError, match=r"missing from its files|cannot be loaded") as caught:
        DiffusersPipeline(replace(spec, model=str(broken)))
    assert fault == "cut" or (f"broken/{part}" in str(caught.value) and name in str(caught.value))


def test_it_is_an_ordinary_folder_with_the_classes_of_the_real_one(folder):
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "SanaPipeline"
    assert {name: index[name][1] for name in index if not name.startswith("_")} == {
        "scheduler": "DPMSolverMultistepScheduler",
        "text_encoder": "Gemma2Model",
        "tokenizer": "GemmaTokenizer",
        "transformer": "SanaTransformer2DModel",
        "vae": "AutoencoderDC",
    }
    assert not list(folder.rglob("*.bin")) and len(list(folder.rglob("*.safetensors"))) == 3


def test_its_tokenizer_begins_a_text_and_spells_what_it_has_not_learned(folder):
    from omniq_verl.tiny.sana import TinySanaSize, build_tokenizer

    tokenizer = build_tokenizer(TEXTS, TinySanaSize())
    for text in (*TEXTS, "Ω 猫"):
        tokens = tokenizer(text)["input_ids"]
        assert tokens[0] == tokenizer.bos_token_id and tokenizer.unk_token_id not in tokens
        assert tokenizer.decode(tokens, skip_special_tokens=True) == text
    assert len(tokenizer(TEXTS[0])["input_ids"]) < len(TEXTS[0])


def test_the_same_weights_come_of_the_same_seed(folder, tmp_path):
    from omniq_verl.tiny.sana import save_tiny_sana

    for seed, same in ((0, True), (1, False)):
        save_tiny_sana(tmp_path / "again", TEXTS, seed)
        name = Path("transformer", "diffusion_pytorch_model.safetensors")
        assert ((tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()) is same


def test_a_text_and_a_seed_give_the_same_image_whatever_it_is_drawn_beside(pipeline):
    alone = pixels([*pipeline.draw([TEXTS[0]], [7]), *pipeline.draw([TEXTS[1]], [8])])
    assert alone.shape == (2, 64, 64, 3) and np.array_equal(alone[:1], pixels(pipeline.draw([TEXTS[0]], [7])))
    for texts, seeds, refs in (
        ([TEXTS[0], TEXTS[1]], [7, 8], [0, 1]),
        ([TEXTS[1], TEXTS[2], TEXTS[0]], [8, 7, 7], [2, 0]),
        ([TEXTS[0]] * 3, [6, 7, 8], [1, None]),
    ):
        found = pixels(pipeline.draw(texts, seeds))
        for expected, ref in zip(alone, refs, strict=True):
            assert ref is None or np.abs(found[ref] - expected).max() <= CLOSE


def test_other_texts_and_other_seeds_give_other_images(pipeline):
    one, seed, text = pixels(pipeline.draw([TEXTS[0], TEXTS[0], TEXTS[1]], [0, 1, 0]))
    assert np.abs(one - seed).mean() > 5 and np.abs(one - text).mean() > 0.5


def test_a_pipeline_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="cannot be loaded as a diffusers pipeline"):
        DiffusersPipeline(GeneratorSpec(str(tmp_path)))


def test_best_of_n_with_it_is_the_same_in_another_batch(spec, tmp_path):
    prompts = [{"prompt": text} for text in TEXTS[:2]]
    run = BestOfN(prompts, tmp_path / "one", spec, EngineSpec("", RATER), n=3, batch=2)
    other = replace(run, out=tmp_path / "other", batch=3)
    console = Console(file=io.StringIO())
    first, second = best_of_n(run, console), best_of_n(other, console)
    assert [pick["best"] for pick in first] == [pick["best"] for pick in second]
    one, two = pngs(run.out / "candidates"), pngs(other.out / "candidates")
    assert len(one) == 6 and all(np.abs(one[name] - two[name]).max() <= CLOSE for name in one)


def test_reflection_with_it_is_the_same_in_another_batch(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prompts = [{"prompt": text} for text in TEXTS[:2]]
    run = Reflection(prompts, tmp_path / "one", spec, EngineSpec("", CRITIC), rounds=2, batch=2)
    other = replace(run, out=tmp_path / "other", batch=1)
    console = Console(file=io.StringIO())
    first, second = reflect(run, console), reflect(other, console)
    assert [(one["best"], one["drawn_from"]) for one in first] == [(one["best"], one["drawn_from"]) for one in second]
    one, two = pngs(run.out / "candidates"), pngs(other.out / "candidates")
    assert len(one) == 6 and all(np.abs(one[name] - two[name]).max() <= CLOSE for name in one)


@pytest.mark.slow
def test_the_commands_from_prompts_to_genevals_table(folder, tmp_path, monkeypatch):
    """With a tiny Qwen2.5-VL that has learned nothing: it gives no scores and no prompts, and stops nothing."""
    from omniq_verl.tiny.model import save_tiny_model

    monkeypatch.chdir(tmp_path)
    save_tiny_model(tmp_path / "scorer", TEXTS * 10, [smooth(80, 80, seed) for seed in range(4)])
    model = ImageScorers(["alignment"], EngineSpec("scorer", "hf", max_model_len=4000)).model
    question = Request("0", ask_for_prompt("a fox", "a red fox", "it is brown", 100))
    (answer,), _ = model.answer(
        [question, Request("1", [{"role": "user", "content": "hello"}])], Sampling(max_tokens=8)
    )
    assert read_rewrite(answer, 100).status in (NO_PROMPT, TRUNCATED) and answer.tokens > 0
    lines = [{"tag": tag, "prompt": f"a photo of {tag}", "include": []} for tag in TAGS]
    Path("prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shared = ["prompts.jsonl", "--generator", str(folder), "--steps", "2", "--height", "64", "--width", "64"]
    shared += ["--model", "scorer", "--engine", "hf", "--max-tokens", "24", "--max-model-len", "4000"]
    for words in (["best-of-n", "--n", "2", "--out", "best"], ["reflect", "--rounds", "2", "--out", "reflected"]):
        result = CliRunner().invoke(app, ["t2i", *words, *shared])
        assert result.exit_code == 0, result.output
    for out, images in (("best", 12), ("reflected", 18)):
        assert len(list(Path(out, "candidates").rglob("*.png"))) == images
        picks = [json.loads(line) for line in Path(out, "picks.jsonl").read_text().splitlines()]
        assert all(pick["best"] is None and "error" not in str(pick["rejected"]) for pick in picks)
        assert sorted(path.name for path in Path(out, "best").iterdir()) == [f"{number:05d}" for number in range(6)]
    # What GenEval's scorer would write of the images of the first round.
    results = [
        {"filename": str(path), "tag": line["tag"], "prompt": line["prompt"], "correct": True}
        for line, path in zip(lines, sorted(Path("reflected", "candidates").rglob("00000.png")), strict=True)
    ]
    Path("results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in results))
    words = ["t2i", "geneval", "results.jsonl", "--prompts", "prompts.jsonl"]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 0 and not any(line.startswith("- ") for line in result.output.splitlines())
