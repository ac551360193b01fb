"""The vision tower of one model and the language model of another: tensors, logits, what is rejected, the page."""

import json
from pathlib import Path

import pytest
import torch
from findings_builders import PHOTO, SIZE, answer_text, answered, save_model, setup_of, write_rows
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from omniq_verl.evaluation.heatmap import question_inputs
from omniq_verl.findings import swap
from omniq_verl.findings.parts import check_fit, join_parts, vision_name
from omniq_verl.generation.weights import INDEX, SINGLE
from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.model import TinySize


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [save_model(root / f"seed_{seed}", seed) for seed in (0, 1)]


def opened(folder: Path):
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)


def test_names_of_the_tower():
    assert vision_name("visual.merger.mlp.0.bias") == "visual.merger.mlp.0.bias"
    assert vision_name("model.visual.blocks.0.norm1.weight") == "visual.blocks.0.norm1.weight"
    assert vision_name("model.language_model.layers.0.mlp.visual") is None
    assert vision_name("lm_head.weight") is None


def test_the_joined_model_computes_what_its_parts_put_together_do(tmp_path, folders):
    vision, language = folders
    joined = opened(join_parts(vision, language, tmp_path / "joined"))
    reference = opened(language)
    reference.model.visual = opened(vision).model.visual
    inputs = question_inputs(AutoProcessor.from_pretrained(language), TECHNICAL.messages("one"), PHOTO)
    with torch.inference_mode():
        found, expected = joined(**inputs).logits, reference(**inputs).logits
        assert torch.equal(found, expected)
        assert not torch.equal(found, opened(language)(**inputs).logits)
        assert not torch.equal(found, opened(vision)(**inputs).logits)


def test_a_model_joined_with_itself_is_itself(tmp_path, folders):
    joined = join_parts(folders[0], folders[0], tmp_path / "joined")
    before, after = load_file(folders[0] / SINGLE), load_file(joined / SINGLE)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_shards_and_other_prefixes_are_followed(tmp_path, folders):
    tensors = load_file(folders[0] / SINGLE)
    vision = tmp_path / "vision"
    vision.mkdir()
    (vision / "config.json").write_text((folders[0] / "config.json").read_text())
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, mine in parts.items():
        save_file({name.removeprefix("model."): tensors[name].clone() for name in mine}, vision / file)
    index = {name.removeprefix("model."): file for file, mine in parts.items() for name in mine}
    (vision / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    found = load_file(join_parts(vision, folders[1], tmp_path / "joined") / SINGLE)
    for name, tensor in load_file(folders[1] / SINGLE).items():
        assert torch.equal(found[name], tensors[name] if vision_name(name) else tensor), name


def test_the_language_models_shards_and_number_type_stay(tmp_path, folders):
    language = save_model(tmp_path / "sharded", 2)
    model = opened(language).to(torch.bfloat16)
    (language / SINGLE).unlink()
    model.save_pretrained(language, max_shard_size="400KB")
    assert (language / INDEX).is_file()
    joined = join_parts(folders[0], language, tmp_path / "joined")
    found = {name: tensor for path in joined.glob("*.safetensors") for name, tensor in load_file(path).items()}
    expected = load_file(folders[0] / SINGLE)
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    tower = {name: tensor for name, tensor in found.items() if vision_name(name)}
    assert tower and all(torch.equal(tensor, expected[name].to(torch.bfloat16)) for name, tensor in tower.items())


def test_a_folder_that_is_there_is_kept_only_if_it_is_of_the_same_weights(tmp_path, folders):
    joined = join_parts(*folders, tmp_path / "joined")
    written = (joined / SINGLE).stat().st_mtime_ns
    assert join_parts(*folders, joined) == joined and (joined / SINGLE).stat().st_mtime_ns == written
    with pytest.raises(ValueError, match=r"holds another model\. Fix"):
        join_parts(*folders[::-1], joined)


def test_towers_of_other_shapes_are_rejected_by_name(tmp_path, folders):
    other = save_model(tmp_path / "other", 0, TinySize(layers=2, vision_layers=1, vision_mlp=64))
    with pytest.raises(ValueError, match=r"does not fit .*visual.*128.*64.*Fix"):
        check_fit(folders[0], other)
    with pytest.raises(ValueError, match=r"does not fit .*no such tensor.*Fix"):
        check_fit(folders[0], save_model(tmp_path / "deep", 0, TinySize(layers=2, vision_layers=2)))
    assert SIZE.vision_layers == 1


def test_a_model_without_a_tower_is_rejected(tmp_path, folders):
    tensors = {name: one for name, one in load_file(folders[0] / SINGLE).items() if not vision_name(name)}
    (tmp_path / "blind").mkdir()
    save_file(tensors, tmp_path / "blind" / SINGLE)
    with pytest.raises(ValueError, match=r"no module named visual.*Fix"):
        check_fit(tmp_path / "blind", folders[1])


def test_a_tower_as_a_pickle_is_rejected(tmp_path, folders):
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text((folders[0] / "config.json").read_text())
    torch.save(load_file(folders[0] / SINGLE), folder / "pytorch_model.bin")
    setup = setup_of(tmp_path / "out", folders[:1], [write_rows(tmp_path / "rows.parquet", [1.0])])
    with pytest.raises(ValueError, match="pickle"):
        swap.find_swap(setup, str(folder), Console(quiet=True))


def test_the_finding_compares_each_model_with_itself_and_the_models_under_one_tower(tmp_path, folders, monkeypatch):
    language = [save_model(tmp_path / "runs" / name, seed) for name, seed in (("koniq", 2), ("kadid", 3))]
    data = write_rows(tmp_path / "rows.parquet", [1.0, 2.0, 3.0, 4.0, 5.0])
    setup = setup_of(tmp_path / "out", language, [data])
    scores = {"model_1": [1, 2, 3, 4, 5], "model_1_swapped": [1, 2, 3, 5, 4], "model_2": [2, 1, 3, 4, 5]}

    def ask(_setup, spec, name, part, _sampling, _console):
        if part.endswith("swapped"):
            assert (Path(spec.model) / SINGLE).is_file()
        return answered(setup, [answer_text(one) for one in scores.get(part, [5, 4, 3, 2, 1])], name)

    monkeypatch.setattr(swap, "ask", ask)
    swap.find_swap(setup, str(folders[0]), Console(quiet=True))
    numbers = json.loads((tmp_path / "out/swap.json").read_text())
    assert numbers["models"]["koniq, other tower"]["made"]["srcc"]["value"] == pytest.approx(0.9)
    pairs = {(pair["first"], pair["other"]): pair["srcc"] for pair in numbers["pairs"]}
    assert len(pairs) == 3
    assert pairs["koniq, other tower", "koniq"]["difference"] == pytest.approx(-0.1)
    assert pairs["kadid, other tower", "kadid"]["difference"] == pytest.approx(-1.9)
    assert pairs["koniq, other tower", "kadid, other tower"]["difference"] == pytest.approx(1.9)
