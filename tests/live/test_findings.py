"""What the live check concludes from what it measured; its measurements are tested on real engines in contracts/."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from omniq_verl.live.conclusions import (
    Measured,
    answers_finding,
    image_findings,
    log_prob_finding,
    prompt_finding,
    reward_finding,
    rollout_finding,
    sleep_finding,
    token_finding,
    vision_finding,
)
from omniq_verl.live.findings import (
    FAILED,
    LIMITS,
    OK,
    SKIPPED,
    Finding,
    Limits,
    LiveReport,
    agreement,
    live_check_mode,
)
from omniq_verl.live.vision import VisionPerturbation

FP32 = LIMITS["float32"]
ANSWERS = [np.log(np.array([0.9, 0.5, 0.2])), np.log(np.array([0.7, 0.99]))]


@dataclass
class Answer:
    question: int = 0
    session: int = 0
    response: tuple = (1, 2, 3)
    log_probs: np.ndarray = field(default_factory=lambda: ANSWERS[0])
    reward: float = 0.5
    parts: dict = field(default_factory=dict)


def shifted(by: float) -> list[np.ndarray]:
    return [one + by for one in ANSWERS]


def test_agreement_is_pearson_s_correlation_of_probabilities_and_differences_in_nats():
    other = [np.log(np.array([0.8, 0.6, 0.2])), np.log(np.array([0.6, 0.98]))]
    found = agreement(ANSWERS, other)
    one, two = np.exp(np.concatenate(ANSWERS)), np.exp(np.concatenate(other))
    covariance = np.mean((one - one.mean()) * (two - two.mean()))
    assert found.tokens == 5
    assert found.correlation == pytest.approx(covariance / one.std() / two.std())
    assert found.mean == pytest.approx(np.abs(np.log(one) - np.log(two)).mean())
    assert found.largest == pytest.approx(np.abs(np.log(one) - np.log(two)).max())


def test_certain_tokens_have_no_correlation_and_agree():
    certain = [np.full(10, -1e-7)]
    found = agreement(certain, [np.full(10, -2e-7)])
    assert found.correlation is None
    assert found.within(FP32)


def test_answers_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match="length"):
        agreement([np.zeros(3)], [np.zeros(2)])


def test_no_answer_at_all_is_no_agreement():
    assert not agreement([], []).within(FP32)


@pytest.mark.parametrize("dtype", LIMITS)
def test_log_probabilities_within_the_limits_of_their_dtype_pass_and_others_fail(dtype):
    limits = LIMITS[dtype]
    assert log_prob_finding(Measured(ANSWERS, shifted(limits.mean * 0.9)), limits).status == OK
    assert log_prob_finding(Measured(ANSWERS, shifted(limits.mean * 1.1)), limits).status == FAILED
    outlier = [ANSWERS[0] + np.array([limits.largest * 1.1, 0, 0]), *ANSWERS[1:]]
    assert log_prob_finding(Measured(ANSWERS, outlier), Limits(-1, 9, limits.largest)).status == FAILED
    unrelated = [np.log(np.array([0.2, 0.5, 0.9])), np.log(np.array([0.99, 0.7]))]
    assert log_prob_finding(Measured(ANSWERS, unrelated), Limits(limits.correlation, 9, 9)).status == FAILED


def test_a_ban_of_tokens_may_shift_log_probabilities_by_their_share():
    # An untrained model gives 12 of 448 tokens 2.7% of the probability; the rest gets it where these are banned.
    shift = -np.log1p(-12 / 448)
    banned = Limits(FP32.correlation, FP32.mean, FP32.largest, shift)
    found = Measured(shifted(shift), ANSWERS)
    assert log_prob_finding(found, FP32).status == FAILED
    assert log_prob_finding(found, banned).status == OK
    assert log_prob_finding(Measured(shifted(2 * shift), ANSWERS), banned).status == FAILED


def test_an_image_must_change_answers_by_more_than_the_engines_differ():
    same = {"own": Measured(ANSWERS, shifted(1e-5))}
    assert [one.status for one in image_findings(same, 0.1, FP32)] == [OK, OK]
    assert image_findings(same, 2e-5, FP32)[0].status == FAILED
    assert image_findings(same, 0.0, FP32)[0].status == FAILED


def test_another_image_is_noticed_even_within_the_limits_of_the_dtype():
    # In bf16 a difference of 0.04 nats passes, but not where a wrong image makes no more than that.
    measured = {name: Measured(ANSWERS, shifted(0.04)) for name in ("own", "blank", "other")}
    assert [one.status for one in image_findings(measured, 0.05, LIMITS["bfloat16"])[1:]] == [FAILED] * 3
    assert [one.status for one in image_findings(measured, 0.5, LIMITS["bfloat16"])[1:]] == [OK] * 3


def test_rows_without_images_are_skipped():
    assert [one.status for one in image_findings({"own": Measured(ANSWERS, ANSWERS)}, None, FP32)] == [SKIPPED]


def test_a_vision_update_that_did_not_arrive_is_noticed():
    assert vision_finding(Measured(ANSWERS, shifted(0.08)), 0.08, FP32).status == FAILED
    assert vision_finding(Measured(ANSWERS, shifted(1e-5)), 0.08, FP32).status == OK
    assert vision_finding(Measured(ANSWERS, shifted(1e-5)), 1e-4, FP32).status == SKIPPED


def test_answers_after_sleep_are_compared_up_to_the_first_other_token():
    before = [Answer()]
    other = Answer(response=(1, 2, 9), log_probs=ANSWERS[0] + np.array([0, 0, -5.0]))
    assert sleep_finding(before, [other], FP32).status == OK
    assert sleep_finding(before, [Answer(response=(9, 2, 3))], FP32).status == FAILED  # nothing left to compare
    assert sleep_finding(before, [Answer(log_probs=ANSWERS[0] + 0.5)], FP32).status == FAILED
    assert sleep_finding(before, [], FP32).status == FAILED


def test_forbidden_tokens_are_named():
    assert token_finding([Answer()], [], {7: "<|image_pad|>"}).status == OK
    found = token_finding([Answer(response=(1, 7))], [8], {7: "<|image_pad|>", 8: "<|im_start|>"})
    assert found.status == FAILED
    assert "<|im_start|>, <|image_pad|>" in found.measured


def test_lost_rollouts_are_counted_with_their_reason():
    assert rollout_finding(20, 20, []).status == OK
    found = rollout_finding(18, 20, ["row koniq/5: ValueError: broken"])
    assert (found.status, "18 of 20" in found.measured, "koniq/5" in found.measured) == (FAILED, True, True)


def test_prompts_are_compared_token_by_token():
    assert prompt_finding([(1, 2)], [(1, 2)]).status == OK
    assert prompt_finding([(1, 2), (3,)], [(1, 2), (4,)]).status == FAILED


@pytest.mark.parametrize(
    ("reward", "parts", "by_hand", "status"),
    [
        (0.5, {}, 0.5, OK),
        (0.5, {"accuracy": 0.5, "pred": float("nan")}, {"score": 0.5, "accuracy": 0.5, "pred": float("nan")}, OK),
        (10.0, {}, 0.5, FAILED),
        (0.5, {"accuracy": 0.4}, {"score": 0.5, "accuracy": 0.5}, FAILED),
        (0.5, {"pred": 3.0}, {"score": 0.5, "pred": float("nan")}, FAILED),
    ],
)
def test_rewards_and_their_parts_are_those_computed_by_hand(reward, parts, by_hand, status):
    assert reward_finding([(Answer(reward=reward, parts=parts), by_hand, "text")]).status == status


def test_a_model_none_of_whose_answers_can_be_read_is_noticed():
    def pairs(*parsed: float) -> list:
        return [(Answer(), {"score": 0.0, "parsed": one}, "text") for one in parsed]

    assert answers_finding(pairs(0, 0, 1)).status == OK
    assert answers_finding(pairs(0, 0)).status == FAILED
    assert answers_finding([(Answer(), 0.5, "text")]).status == SKIPPED


def test_a_report_comes_back_as_it_was_saved(tmp_path):
    report = LiveReport([Finding("a", OK, "1"), Finding("b", FAILED, "2", "It is bad.", "fix it")], 3.5, {"rows": 2})
    assert LiveReport.load(report.save(tmp_path / "new")) == report
    assert [one.name for one in report.failed] == ["b"]


@pytest.mark.parametrize(("value", "mode"), [("off", "off"), (False, "off"), ("first", "first"), ("only", "only")])
def test_modes(value, mode):
    assert live_check_mode(OmegaConf.create({"trainer": {"v1": {"live_check": value}}})) == mode


def test_a_run_without_the_setting_is_not_checked():
    assert live_check_mode(OmegaConf.create({"trainer": {}})) == "off"


def test_another_mode_is_an_error():
    with pytest.raises(ValueError, match="always: choose one of"):
        live_check_mode(OmegaConf.create({"trainer": {"v1": {"live_check": "always"}}}))


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual, self.language = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_vision_tower_alone_is_changed_and_comes_back_to_the_bit(dtype):
    model = Model().to(dtype)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    changed = VisionPerturbation(model, 0.4)
    assert changed.weights == 20
    for name, weight in model.state_dict().items():
        ratio = (weight.float() / before[name].float() - 1).abs()
        assert (ratio.max() > 0.2) == name.startswith("visual"), name
        assert ratio.max() <= 0.41
    changed.undo()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_the_vision_tower_comes_back_after_its_weights_were_offloaded():
    model = Model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for strength in (0.1, 0.4):
        changed = VisionPerturbation(model, strength)
        for parameter in model.parameters():  # as a model that is moved to the GPU and back
            parameter.data = parameter.data.clone()
        changed.undo()
        assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
