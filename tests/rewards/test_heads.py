"""Several numbers in one answer: the task, its labels, parsing, one reward and one set of metrics per number."""

import dataclasses
import json
import math

import numpy as np
import pytest
from batch_reward_builders import rollouts_from
from hypothesis import given
from hypothesis import strategies as st
from reference_builders import write_modules
from scipy import stats

from omniq_verl.data.rows import Row
from omniq_verl.rewards import Status, compute_score, gaussian_reward
from omniq_verl.rewards.batch import BatchRewardSettings, batch_reward
from omniq_verl.rewards.batch.visualquality_r1 import visualquality_r1
from omniq_verl.rewards.heads import parse_heads
from omniq_verl.tasks import Scale, Task, find_task, image_task
from omniq_verl.trainer.validation import ANSWER_KEYS, validation_metrics

HEADS = ("quality", "aesthetics", "structure")
TASK = {
    "three_numbers": """
from omniq_verl.tasks import Scale, Task
RULE = ' Give an object such as {"quality": 3.1, "aesthetics": 2.0, "structure": 4.2} in <answer></answer>.'
THREE = Task(name="three", scale=Scale(1.0, 5.0), answer_format="json", answer_rule=RULE,
             heads=("quality", "aesthetics", "structure"), questions=("Rate it from {low} to {high}." + RULE,))
"""
}
NAME = "three_numbers:THREE"
SCALE = Scale(1.0, 5.0)


@pytest.fixture(autouse=True)
def outside(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(write_modules(tmp_path, TASK)))


def said(**numbers: object) -> str:
    return f"<think>so</think><answer>{json.dumps(numbers)}</answer>"


def score(text: str, labels: dict[str, float], **settings: object) -> dict[str, float]:
    return compute_score("mine", text, json.dumps({"scores": labels}), {"task": NAME, "id": "a"}, **settings)


def test_every_number_has_a_reward_of_its_own_and_the_accuracy_is_their_mean():
    found = score(said(quality=3.0, aesthetics="2.5", structure=4.0), {"quality": 3.5, "aesthetics": 2.5})
    parts = [gaussian_reward(3.0, 3.5), 1.0]
    assert [found[f"head/{head}/accuracy"] for head in HEADS[:2]] == pytest.approx(parts)
    assert math.isnan(found["head/structure/accuracy"]) and found["head/structure/pred"] == 4.0  # it has no label
    assert found["accuracy"] == found["score"] == pytest.approx(np.mean(parts))
    assert (found["head/aesthetics/pred"], found["head/aesthetics/target"]) == (2.5, 2.5)
    assert math.isnan(found["pred"]) and math.isnan(found["target"]) and found["level_asked"] == 0
    narrow = score(said(quality=3.0, aesthetics=2.5, structure=4.0), {"quality": 3.5}, sigma=0.4)
    assert narrow["accuracy"] == pytest.approx(gaussian_reward(3.0, 3.5, 0.4))


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (said(quality=3.0, aesthetics=2.0), "not_a_number"),
        (said(quality=3.0, aesthetics=2.0, structure="high"), "not_a_number"),
        (said(quality=3.0, aesthetics=2.0, structure=True), "not_a_number"),
        (said(quality=3.0, aesthetics=2.0, structure=None), "not_a_number"),
        (said(quality=3.0, aesthetics=2.0, structure="</answer>"), "many_answers"),
        (said(quality=3.0, aesthetics=2.0, structure=5.5), "out_of_range"),
        (said(quality=3.0, aesthetics=2.0, structure=[4.0]), "not_json"),
        ("<answer>3.0</answer>", "not_json"),
        ("<answer>{", "truncated"),
        ("", "no_answer"),
    ],
)
def test_an_answer_without_all_its_numbers_earns_nothing(text, status):
    found = score(text, dict.fromkeys(HEADS, 3.0))
    assert list(Status)[int(found["status"])].value == status
    assert found["accuracy"] == 0.0 and not found["parsed"]
    assert [found[f"head/{head}/accuracy"] for head in HEADS] == [0.0] * 3
    assert set(found) == set(score(said(quality=1, aesthetics=1, structure=1), {"quality": 1.0}))


@given(st.text(alphabet=st.sampled_from('<answer>/{}":,.0123456789quality ')))
def test_no_text_breaks_the_parser(text):
    parsed = parse_heads(f"<answer>{text}</answer>", ("quality",), SCALE)
    assert not parsed.ok or SCALE.contains(parsed.fields["quality"])


def test_labels_are_written_and_checked():
    row = Row("mine", "a", NAME, "train", scores={"quality": 3.0, "structure": 4.123456789})
    record = row.record(0, b"x")
    assert json.loads(record["reward_model"]["ground_truth"]) == {"scores": {"quality": 3.0, "structure": 4.123457}}
    wrong = {
        "no object under 'scores'": None,
        "no number under 'quality'": {"quality": "3"},
        "the label 6 is outside": {"quality": 6.0},
        "'scores' has sharpness; the task": {"sharpness": 3.0},
    }
    for message, scores in wrong.items():
        with pytest.raises(ValueError, match=message):
            Row("mine", "a", NAME, "train", scores=scores)
    with pytest.raises(ValueError, match=r"reward_model.ground_truth: there is no object under 'scores'.*Fix: write"):
        compute_score("mine", "", '{"score": 3.0}', {"task": NAME})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": ("a", "a")}, "heads has a name twice"),
        ({"heads": ("a b",)}, "heads must be a tuple of names"),
        ({"heads": ("a",), "answer_format": "number"}, "heads need answer_format='json' and a scale"),
        ({"heads": ("a",), "scale": None}, "heads need answer_format='json' and a scale"),
    ],
)
def test_a_task_whose_heads_make_no_sense_is_an_error(changes, message):
    given_ = {"name": "t", "questions": ("Rate it.",), "scale": SCALE, "answer_format": "json"}
    with pytest.raises(ValueError, match=message):
        Task(**{**given_, **changes})


def test_commands_that_read_one_score_say_so():
    assert find_task(NAME).asks_for == "scores"
    with pytest.raises(ValueError, match=r"asks for 3 numbers, but one is read here\. Fix: name a task"):
        image_task(NAME, "--task")


def test_validation_reports_every_number_beside_other_tasks():
    rng = np.random.default_rng(0)
    labels = rng.uniform(1, 5, (12, 2)).round(2)
    answers = np.clip(labels + rng.normal(0, 0.8, labels.shape), 1, 5).round(2)
    rows = [
        score(said(quality=a, aesthetics=b, structure=1.0), {"quality": x, "aesthetics": y})
        for (a, b), (x, y) in zip(answers.tolist(), labels.tolist(), strict=True)
    ]
    plain = compute_score("koniq", "<think>a</think><answer>3</answer>", '{"score": 3.5}', {"task": "technical"})
    rows += [score("nothing", {"quality": 3.0, "aesthetics": 3.0}), plain]
    keys = (*ANSWER_KEYS, *(f"head/{head}/{part}" for head in HEADS for part in ("pred", "target", "accuracy")))
    columns = {key: [row.get(key) for row in rows] for key in keys}  # verl fills in None
    found = validation_metrics(["mine"] * 13 + ["koniq"], columns, tasks=[NAME])
    for number, head in enumerate(HEADS[:2]):
        expected = stats.spearmanr(answers[:, number], labels[:, number]).statistic
        assert found[f"val-core/mine/{head}/srcc"] == pytest.approx(expected)
        assert found[f"val-core/mine/{head}/mae"] == pytest.approx(np.abs(answers - labels)[:, number].mean())
    assert not [key for key in found if "structure" in key or key == "val-core/mine/srcc"]
    assert found["val-core/mine/parse_failure"] == pytest.approx(1 / 13) and found["val-core/koniq/mae"] == 0.5


def test_a_batch_reward_sees_one_number_at_a_time():
    first = [([3.0, 4.0, 3.5], 4.2), ([2.0, 2.5, 1.0], 1.5)]
    second = [([1.0, 2.0, 4.0], 3.0), ([3.0, 3.0, 5.0], 3.5)]
    one, two = rollouts_from(first), rollouts_from(second)
    parts = {
        **{f"head/quality/{key}": getattr(one, key) for key in ("pred", "target")},
        **{f"head/aesthetics/{key}": getattr(two, key) for key in ("pred", "target")},
    }
    none = np.full(6, math.nan)
    both = type(one)(**{**vars(one), "pred": none, "target": none, "parts": parts})
    found = batch_reward(both, BatchRewardSettings("per_head", {"weights": {"aesthetics": 3.0}}))
    assert found == pytest.approx((visualquality_r1(one) + 3 * visualquality_r1(two)) / 4)
    assert batch_reward(one, BatchRewardSettings("per_head")) == pytest.approx(visualquality_r1(one))
    with pytest.raises(ValueError, match=r"the weight of quality is -1\. Fix: "):
        batch_reward(both, BatchRewardSettings("per_head", {"weights": {"quality": -1}}))


def test_a_weight_of_no_number_is_told_once(caplog):
    rollouts = rollouts_from([([3.0], 3.0), ([4.0], 2.0)])
    parts = {f"head/quality/{name}": np.array([3.0, 4.0]) for name in ("pred", "target")}
    chosen = BatchRewardSettings("per_head", {"weights": {"qualty": 2.0}})
    for _ in range(2):
        batch_reward(dataclasses.replace(rollouts, parts=parts), chosen)
    assert caplog.text.count("weights names 'qualty', and the answers have quality. Fix") == 1
