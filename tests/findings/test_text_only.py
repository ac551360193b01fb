"""The score from the text: what the model reads, ridge regressions against plain ones, crossed texts, the page."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from findings_builders import PHOTO, WORDS, answer_text, answered, save_model, setup_of, write_rows
from rich.console import Console

from omniq_verl.findings import features, text_only
from omniq_verl.findings.forced import forced_score, forced_text, without_image
from omniq_verl.findings.reader import Reader
from omniq_verl.findings.text_only import CROSSED, IMAGE_AND_TEXT, TEXT_ALONE
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.store import OtherConfig
from omniq_verl.tasks import TECHNICAL, ForbiddenText

MESSAGES = TECHNICAL.messages("one")
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return Reader(EngineSpec(str(save_model(tmp_path_factory.mktemp("model") / "step")), "hf"))


# Features


def test_features_are_means_of_transformers_hidden_states(reader):
    read = reader.read(MESSAGES, [PHOTO], answer_text(3.7), "number", TECHNICAL.scale)
    with torch.inference_mode():
        hidden = reader.model(**read.inputs, output_hidden_states=True).hidden_states
        tower = reader.model.model.visual(read.inputs["pixel_values"], grid_thw=read.inputs["image_grid_thw"])
    found = features.token_features(reader, read)
    tokens = tower.pooler_output if hasattr(tower, "pooler_output") else tower
    assert found["visual"] == pytest.approx(tokens.mean(dim=0).numpy(), abs=1e-5)
    for name, kind in (("visual_late", "image"), ("reasoning", "reasoning")):
        refs = [ref for ref, one in enumerate(read.kinds) if one == kind]
        assert found[name] == pytest.approx(hidden[-1][0, refs].mean(dim=0).numpy(), abs=1e-5)


def test_folds_are_of_equal_size_and_each_image_is_in_one():
    assert sorted(np.bincount(features.folds_of(23)).tolist()) == [4, 4, 5, 5, 5]
    assert features.folds_of(23).tolist() == features.folds_of(23).tolist() != features.folds_of(23, 1).tolist()


def test_ridge_predictions_are_those_of_the_closed_form():
    vectors, folds = RNG.normal(size=(40, 3)), features.folds_of(40)
    target = vectors @ [1.0, -2.0, 0.5] + RNG.normal(scale=0.5, size=40)
    found = features.ridge_predictions(vectors, target)
    for fold in range(features.FOLDS):
        train, test = folds != fold, folds == fold
        mean, std = vectors[train].mean(axis=0), vectors[train].std(axis=0)
        x, y = (vectors[train] - mean) / std, target[train] - target[train].mean()

        def fitted(alpha, x=x, y=y):
            return np.linalg.solve(x.T @ x + alpha * np.eye(3), x.T @ y)

        def left_out(alpha, x=x, y=y):  # with the intercept's share of the hat matrix
            hat = x @ np.linalg.solve(x.T @ x + alpha * np.eye(3), x.T) + 1 / len(x)
            return np.mean(((y - x @ fitted(alpha)) / (1 - np.diag(hat))) ** 2)

        best = min(features.ALPHAS, key=left_out)
        expected = (vectors[test] - mean) / std @ fitted(best) + target[train].mean()
        assert found[test] == pytest.approx(expected, abs=1e-6)


def test_a_ridge_on_words_finds_what_words_tell_and_nothing_in_numbers():
    target = np.tile(np.arange(1.0, 6.0), 12)
    words = [f"slight noise, {WORDS[int(one) - 1]} quality" for one in target]
    assert np.corrcoef(features.ridge_on_texts(words, target), target)[0, 1] > 0.99
    numbers = [f"I give it {one}" for one in target]
    assert np.ptp(features.ridge_on_texts(numbers, target)) < 0.5
    assert np.isfinite(features.ridge_on_texts(["3.5"] * 60, target)).all()


def test_no_label_of_a_fold_is_used_for_it():
    vectors, target = RNG.normal(size=(30, 4)), RNG.normal(size=30)
    before, fold = features.ridge_predictions(vectors, target), features.folds_of(30) == 2
    changed = np.where(fold, 100.0, target)
    assert features.ridge_predictions(vectors, changed)[fold] == pytest.approx(before[fold])


def test_too_few_images_for_folds_are_an_error():
    with pytest.raises(ValueError, match=r"9 images .* 10 are needed. Fix"):
        features.ridge_predictions(np.zeros((9, 2)), np.zeros(9))


@pytest.mark.parametrize(
    ("text", "plain"), [("a 3.5 b", "a   b"), ("10,5%", " %"), ("level3", "level "), ("none", "none")]
)
def test_numbers_are_taken_out(text, plain):
    assert features.without_numbers(text) == plain
    assert features.has_number(text) == (text != plain)


# Reading


def test_the_forced_score_is_the_models_own_continuation(reader, monkeypatch):
    seen = {}

    def generate(**inputs):
        seen.update(inputs)
        more = reader.processor.tokenizer.encode("2.5</answer> and more", add_special_tokens=False)
        return torch.cat([inputs["input_ids"], torch.tensor([more])], dim=1)

    monkeypatch.setattr(reader.model, "generate", generate)
    assert forced_score(reader, MESSAGES, PHOTO, "some blur", TECHNICAL) == 2.5
    shown = reader.processor.tokenizer.decode(seen["input_ids"][0])
    assert shown.endswith("<think>some blur</think><answer>")
    assert "pixel_values" in seen and "<|image_pad|>" in shown
    seen.clear()
    assert forced_score(reader, MESSAGES, None, "some blur", TECHNICAL) == 2.5
    shown = reader.processor.tokenizer.decode(seen["input_ids"][0])
    assert "pixel_values" not in seen and "<|image_pad|>" not in shown
    assert MESSAGES[0]["content"].removeprefix("<image>") in shown


def test_the_forced_score_is_that_of_greedy_decoding_of_the_whole_text(tmp_path, reader):
    """A model whose output layer is made to write "4</answer>" whatever it sees."""
    tokenizer = reader.processor.tokenizer
    wanted = tokenizer.encode("4</answer>", add_special_tokens=False)

    class Writes(torch.nn.Module):
        def forward(self, hidden):
            logits = torch.zeros(*hidden.shape[:2], reader.model.config.text_config.vocab_size)
            logits[..., wanted[min(Writes.step, len(wanted) - 1)]] = 1.0
            Writes.step += 1
            return logits

    Writes.step = 0
    other = Reader(EngineSpec(str(save_model(tmp_path / "step", 1)), "hf"))
    other.model.lm_head = Writes()
    assert forced_score(other, MESSAGES, PHOTO, "blur", TECHNICAL) == 4.0


def test_a_continuation_that_is_no_score_is_none(reader):
    assert forced_score(reader, MESSAGES, PHOTO, "blur", TECHNICAL) is None, "random weights write no number"


def test_a_text_with_a_control_token_is_rejected(reader):
    with pytest.raises(ForbiddenText):
        forced_score(reader, MESSAGES, PHOTO, "a <|image_pad|> b", TECHNICAL)


def test_the_question_without_its_image():
    assert "<image>" not in without_image(MESSAGES)[0]["content"]
    assert without_image(MESSAGES)[0]["role"] == "user"
    assert forced_text("a") == "<think>a</think><answer>"


def test_no_image_gets_its_own_text():
    keys = [str(number) for number in range(7)]
    for seed in range(20):
        other = text_only.other_images(keys, seed)
        assert sorted(other.values()) == keys and all(a != b for a, b in other.items())


# The finding


def test_every_path_is_compared_over_the_same_images(tmp_path, monkeypatch):
    target = list(np.linspace(1.2, 4.8, 15))
    folder = save_model(tmp_path / "step")
    setup = setup_of(tmp_path / "out", [folder], [write_rows(tmp_path / "rows.parquet", target)])
    said = np.round(np.clip(np.array(target) + RNG.normal(scale=0.3, size=15), 1, 5), 1)
    texts = [answer_text(one) for one in said]
    texts[3] = "no answer"
    given = answered(setup, texts, "step")
    asked = []

    def forced(_reader, messages, image, reasoning, task):
        asked.append((image is None, reasoning))
        return 1.0 + WORDS.index(reasoning.split(", ")[1].split()[0])  # follows the text alone

    monkeypatch.setattr(text_only, "ask_all", lambda *_: [given])
    monkeypatch.setattr(text_only, "forced_score", forced)
    text_only.find_text_only(setup, Console(quiet=True))
    model = json.loads((tmp_path / "out/text_only.json").read_text())["models"]["step"]
    paths = {one["name"]: one for one in model["paths"]}
    assert len(paths) == 6 and {one["images"] for one in paths.values()} == {14}
    assert paths[IMAGE_AND_TEXT]["srcc"] == paths[TEXT_ALONE]["srcc"]
    assert paths[CROSSED]["srcc_with_text"] > 0.9 > paths[CROSSED]["srcc"]["value"]
    assert paths[TEXT_ALONE]["difference"]["value"] == pytest.approx(
        paths[TEXT_ALONE]["srcc"]["value"] - paths["the model itself"]["srcc"]["value"]
    )
    assert model["texts_with_a_number"] == 0
    assert sum(blind for blind, _ in asked) == 14 and len(asked) == 14 * 3
    text_only.find_text_only(setup, Console(quiet=True))
    assert len(asked) == 14 * 3, "what was read once is not read again"


def test_two_models_read_each_others_texts(tmp_path, monkeypatch):
    folders = [save_model(tmp_path / name, seed) for name, seed in (("one", 0), ("two", 1))]
    setup = setup_of(tmp_path / "out", folders, [write_rows(tmp_path / "rows.parquet", [2.0, 3.0, 4.0])])
    given = [answered(setup, [answer_text(2 * n + 2)] * 3, name, n) for n, name in enumerate(("one", "two"))]
    monkeypatch.setattr(text_only, "forced_score", lambda *given: 1.0 + WORDS.index(given[3].split()[2]))
    first, second = (text_only.read_forced(setup, given, ref, Console(quiet=True)) for ref in (0, 1))
    other = "the other model's text alone"
    assert first[other].tolist() == [4, 4, 4] and first[TEXT_ALONE].tolist() == [2, 2, 2]
    assert second[other].tolist() == [2, 2, 2] and second[f"text_score {other}"].tolist() == [2, 2, 2]
    data = write_rows(tmp_path / "other.parquet", [2.0, 3.0, 4.0], first=5)
    with pytest.raises(OtherConfig, match=r"another file \(.*rows\.parquet\), not to .*other\.parquet"):
        text_only.read_forced(replace(setup, data=(data,)), given, 0, Console(quiet=True))
