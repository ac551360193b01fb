"""Families of released models: who is recognised, what is asked, and what is read; by tiny models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from generation_builders import png
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

from omniq_verl import Scorer
from omniq_verl.cli import app
from omniq_verl.families.about import card_fields
from omniq_verl.families.find import FAMILIES, find_family, local_model
from omniq_verl.families.levels import Q_REALIGN, level_texts
from omniq_verl.rewards import Status
from omniq_verl.tasks import LEVELS, TECHNICAL
from omniq_verl.tiny.model import save_tiny_model

SETTINGS = {"engine": "hf", "dtype": "float32", "max_tokens": 8}
QUESTIONS = [task.questions[0] for family in FAMILIES.values() for task in family.tasks.values()]
CORPUS = [
    *QUESTIONS,
    *(f"The quality of the image is {word}." for word in LEVELS for _ in range(400)),
    "<answer>3.7</answer>",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("families") / "model"
    save_tiny_model(path, CORPUS, [np.zeros((80, 80, 3), dtype=np.uint8)])
    return path


def described(tmp_path: Path, name: str = "model", model_type: str = "qwen2_5_vl", card: str = "", **ours) -> str:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "README.md").write_text(card)
    if ours:
        (folder / "omniq.json").write_text(json.dumps(ours))
    return str(folder)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Q-Insight", "q_insight"),
        ("VisualQuality-R1-7B", "visualquality_r1"),
        ("EvoQuality", "evoquality"),
        ("VisualScore", "visualscore"),
        ("UnifiedReward-qwen-7b", "unified_reward"),
        ("UnifiedReward-2.0-qwen-7b", "unified_reward_2"),
        ("Q-ReAlign-Mini", "q_realign"),
    ],
)
def test_a_model_is_recognised_by_its_name(tmp_path, name, family):
    assert find_family(described(tmp_path, name))[0].name == family


@pytest.mark.parametrize(
    ("path", "family", "found"),
    [
        ("omniq_verl/models/Q-Insight", None, "q_insight"),
        ("omniq_verl/models/mine", "q_realign", "q_realign"),
        ("q_insight/grpo", "visualquality_r1", "visualquality_r1"),
        ("runs/q_insight_seed0", "ours", "ours"),
        ("models--ByteDance--Q-Insight/snapshots/0a1b", None, "q_insight"),
    ],
)
def test_folders_above_a_model_say_nothing_of_it(tmp_path, path, family, found):
    (tmp_path / path).parent.mkdir(parents=True)
    model_type = "qwen3_5" if family == "q_realign" else "qwen2_5_vl"
    assert find_family(described(tmp_path, path, model_type), family)[0].name == found


def test_a_folder_above_is_not_taken_for_the_family(tmp_path):
    (tmp_path / "runs" / "q_insight").mkdir(parents=True)
    with pytest.raises(ValueError, match="does not say which family"):
        find_family(described(tmp_path, "runs/q_insight/huggingface"))


def test_a_model_is_recognised_by_its_card_and_by_our_own_file(tmp_path):
    card = "---\nlicense: apache-2.0\ntags:\n- evoquality\n- vlm\n---\n# A model\n"
    assert find_family(described(tmp_path, "a", card=card))[0].name == "evoquality"
    card = "---\nbase_model: TianheWu/VisualQuality-R1-7B\n---\n"
    assert find_family(described(tmp_path, "b", card=card))[0].name == "visualquality_r1"
    assert find_family(described(tmp_path, "c", family="ours", version=1, tasks=[]))[0].name == "ours"


@pytest.mark.parametrize(
    ("settings", "family", "said"),
    [
        ({"name": "EvoQuality"}, "q_insight", 'belongs to EvoQuality, not to Q-Insight.*Fix: family="evoquality"'),
        ({}, None, "does not say which family.*Fix: name it"),
        ({}, "q-insight", "unknown family 'q-insight'. Fix: use q_insight"),
        ({"model_type": "llama"}, "q_insight", "is a llama, but Q-Insight is qwen2_5_vl. Fix"),
        ({"name": "one-align", "model_type": "mplug_owl2"}, None, "Q-Align is an mPLUG-Owl2.*Fix: score with pyiqa"),
        ({"name": "DeQA-Score-Mix3", "model_type": "mplug_owl2"}, None, "DeQA-Score is an mPLUG-Owl2.*Fix"),
        ({"name": "UnifiedReward-Think-qwen-7b"}, None, "compares two images.*Fix"),
    ],
)
def test_what_cannot_be_asked_is_rejected_with_a_fix(tmp_path, settings, family, said):
    with pytest.raises(ValueError, match=said):
        find_family(described(tmp_path, **settings), family)


@pytest.mark.parametrize("name", ["huggingface", "q_align", "deqa"])
def test_a_level_scorer_may_be_named_like_its_recipe(tmp_path, name):
    above = tmp_path / "omniq_verl" / "q_align_model"
    above.mkdir(parents=True)
    assert find_family(described(above, name), "levels")[0].name == "levels"
    card = "---\ntags:\n- evoquality\n---\n"
    with pytest.raises(ValueError, match="belongs to EvoQuality, not to a level scorer of omniq_verl"):
        find_family(described(tmp_path, "other", card=card), "levels")


@pytest.mark.parametrize(
    "card",
    [
        *("---\n{", "---\nx: [", "--- \n", "---\n- a\n---", "---\ntags: 3\n---", "\0\xff"),
        # Errors of PyYAML that are no YAMLError.
        *("---\na: 2024-13-45\n---", "---\na: !!bool x\n---", "---\na: !!timestamp x\n---", "---\na: !!int ''\n---"),
    ],
)
def test_a_broken_card_says_nothing(tmp_path, card):
    card_fields(card)
    with pytest.raises(ValueError, match="does not say which family"):
        find_family(described(tmp_path, card=card))


def test_a_file_that_cannot_be_fetched_is_not_taken_for_none(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')

    def download(_model: str, name: str) -> str:
        if name == "config.json":
            return str(tmp_path / name)
        raise (LocalEntryNotFoundError if name == "omniq.json" else EntryNotFoundError)("no connection")

    monkeypatch.setattr("omniq_verl.families.about.check_hub_name", lambda _model: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ValueError, match=r"the hub cannot be reached for omniq\.json\. Fix: try again"):
        find_family("org/q-insight")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find_family("org/q-insight")[0].name == "q_insight"


def test_a_repository_of_several_models_is_opened_at_its_folder(tmp_path):
    inside = tmp_path / "Q-Insight" / "score_degradation"
    inside.mkdir(parents=True)
    (inside / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    family, about = find_family(str(tmp_path / "Q-Insight"))
    assert about.model_type == "qwen2_5_vl" and local_model(str(tmp_path / "Q-Insight"), family) == str(inside)


READ = [
    ("q_insight", '<think>a</think><answer>```json\n{"rating": 3.52}\n```</answer>', 3.52),
    ("q_insight", '<think>a</think><answer>{"reason": "x", "rating": "4"}</answer>', 4.0),
    ("q_insight", '<think>a</think>\n<answer>\n{\n  "rating": 2.75,\n  "why": {"a": 1}\n}\n</answer>', 2.75),
    ("q_insight", "<answer>{'rating': 3.1}</answer>", 3.1),
    ("q_insight", '<answer>{"rating": 7}</answer>', Status.OUT_OF_RANGE),
    ("q_insight", '<answer>{"rating": true}</answer>', Status.NOT_A_NUMBER),
    ("q_insight", '<answer>{"rating": 1e999}</answer>', Status.NOT_A_NUMBER),
    ("q_insight", '<answer>{"rating": "4,5"}</answer>', Status.NOT_A_NUMBER),
    ("q_insight", "<answer>{'rating': 3,'why': 'noise'}</answer>", 3.0),
    ("q_insight", "<think>rating: 3", Status.TRUNCATED),
    ("visualquality_r1", "<think>from 1 to 5</think> <answer> 3.40 </answer>", 3.4),
    ("visualquality_r1", "<answer>1</answer> no, <answer>Score: 2.5 of 5</answer>", 2.5),
    ("visualquality_r1", "<think>from 1 to 5, I think</think> 4.2", 4.2),
    ("visualquality_r1", "<think>on a scale from 1 to 5", Status.TRUNCATED),
    ("evoquality", "<think>a</think><answer>5</answer>", 5.0),
    ("visualscore", "<think>a</think><answer>0.4</answer>", 0.4),
    ("visualscore", "<think>a</think><answer>bad</answer>", Status.NOT_A_NUMBER),
    ("unified_reward", "cat (object): 1\nFinal Score: 3.7", 3.7),
    ("unified_reward", "Final", Status.NO_ANSWER),
]


@pytest.mark.parametrize(("family", "text", "found"), READ)
def test_answers_are_read_as_the_authors_read_them(family, text, found):
    family = FAMILIES[family]
    parsed = family.read(text, next(iter(family.tasks.values())))
    assert (parsed.status if isinstance(found, Status) else parsed.score) == found


def test_one_text_holds_three_scores_of_unified_reward_2():
    family = FAMILIES["unified_reward_2"]
    text = "Alignment Score (1-5): 2.694700002670288\nCoherence Score (1-5): 2.37\nStyle Score (1-5): **2.8**"
    scores = {name: family.read(text, task).score for name, task in family.tasks.items()}
    assert scores == {"alignment": 2.694700002670288, "technical": 2.37, "aesthetic": 2.8}


@pytest.mark.parametrize("text", ["", "<answer>", "{" * 50_000, '<answer>{"rating":' + "9" * 100_000, "```" * 20_000])
def test_no_text_makes_a_parser_raise(text):
    for family in FAMILIES.values():
        for task in family.tasks.values():
            assert not family.read(text, task).ok


ASKED = [
    (family, task, mode)
    for family in FAMILIES.values()
    if family.name not in ("q_align", "deqa", "ours")
    for task in family.tasks
    for mode in family.modes
]


@pytest.mark.parametrize(("family", "task", "mode"), ASKED, ids=lambda value: getattr(value, "name", value))
def test_every_family_is_asked_on_a_tiny_model(folder, family, task, mode):
    if mode == "direct" and family.tasks[task].scale is None:
        pytest.skip("no number is asked for")
    scorer = Scorer.from_pretrained(folder, family=family.name, mode=mode, **SETTINGS)
    prompt = "a cat" if family.tasks[task].needs_text else None
    found = scorer.score(png(1, side=80), task=task, prompt=prompt)
    assert found.task == task and scorer.family is family
    if mode == "direct":
        scale = family.tasks[task].scale
        assert found.ok and scale.low <= found.score <= scale.high and 0 < found.outside < 1
    else:
        assert found.answers == 1 and found.status in {one.value for one in Status} | {"no_class"}


def test_the_expected_level_is_that_of_the_authors_code(folder):
    """The README's lines of Q-ReAlign, on a tiny model whose tokenizer has each word as one token."""
    processor = AutoProcessor.from_pretrained(folder)
    ids = [processor.tokenizer(f" {word}", add_special_tokens=False).input_ids for word in LEVELS]
    assert {len(one) for one in ids} == {1}
    question = [{"type": "image"}, {"type": "text", "text": "How would you rate the quality of this image?"}]
    chat = [{"role": "user", "content": question}]
    text = (
        processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) + "The quality of the image is"
    )
    image = Image.fromarray(np.random.default_rng(5).integers(0, 255, (80, 80, 3), dtype=np.uint8))
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(**processor(text=[text], images=[image], return_tensors="pt")).logits[0, -1]
    shares = logits[[one[0] for one in ids]].softmax(-1)
    expected = float((shares * torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])).sum())
    found = Scorer.from_pretrained(folder, family="q_realign", **SETTINGS).score(image)
    # Other ways of writing a word (" ex" + "cellent") have a small mass, which the authors' code leaves out.
    assert found.score == pytest.approx(expected, abs=5e-3) and found.std > 0


def test_levels_lie_at_equal_distances():
    assert dict(level_texts(Q_REALIGN.task("technical")).values)[" fair"] == 0.5
    assert level_texts(Q_REALIGN.task("aesthetic")).start == "The aesthetics of the image is"


def test_a_familys_task_and_mode_are_checked(folder):
    with pytest.raises(ValueError, match="Q-ReAlign has no mode 'reason'"):
        Scorer.from_pretrained(folder, family="q_realign", mode="reason", **SETTINGS)
    scorer = Scorer.from_pretrained(folder, family="visualquality_r1", **SETTINGS)
    with pytest.raises(ValueError, match=r"VisualQuality-R1 has no task 'aesthetic'. Fix: ask for technical"):
        scorer.score(png(1, side=80), task="aesthetic")


def test_the_command_asks_as_a_family(folder, tmp_path):
    (tmp_path / "a.png").write_bytes(png(1, side=80))
    words = ["score", str(tmp_path / "a.png"), "--model", str(folder), "--engine", "hf"]
    done = CliRunner().invoke(app, [*words, "--family", "q_realign", "--out", str(tmp_path / "a.jsonl")])
    assert done.exit_code == 0, done.output
    assert 0 < json.loads((tmp_path / "a.jsonl").read_text())["score"] < 1
    unknown = CliRunner().invoke(app, [*words, "--family", "auto"])
    assert unknown.exit_code == 1 and "does not say which family" in " ".join(unknown.output.split())


def test_every_family_says_where_its_facts_are_from():
    for family in FAMILIES.values():
        assert family.sources and (family.marks or family.name == "ours")
        assert all(one.endswith(".") for one in family.unsure)
        assert all(task.name == name for name, task in family.tasks.items())
    assert FAMILIES["ours"].tasks["technical"] is TECHNICAL
