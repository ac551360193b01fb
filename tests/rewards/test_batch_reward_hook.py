"""The hook: names and settings, what users get wrong, the doctor, a reward from outside, and every recipe."""

import subprocess
import sys

import numpy as np
import pytest
from batch_reward_builders import rollouts_from
from doctor_builders import RECIPES, composed
from reference_builders import EXAMPLES, REPO, write_modules

from omniq_verl.doctor.compose import compose_recipe
from omniq_verl.doctor.settings import check_settings
from omniq_verl.rewards.batch import SHELF, BatchRewardSettings, Rollouts, batch_reward
from omniq_verl.rewards.batch.probe import probe_batch_reward

IMAGES = [([1.0, 3.0, 3.5], 3.0), ([2.0, None], 4.0)]
RECIPE = "rewards/visualquality_r1"


def test_a_reward_from_outside_is_named_and_nothing_of_the_package_changes(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    chosen = BatchRewardSettings("batch_reward:agreement", {"reach": 2.0})
    assert batch_reward(rollouts_from(IMAGES), chosen).tolist() == [0.0, 1.0, 0.75, 1.0, 0.0]
    given = ["reward.batch_reward=batch_reward:agreement", "+reward.batch_settings.reach=2.0"]
    assert "agreement" not in str(SHELF) and not check_settings(composed("omniquality_r/stage1", *given))


OUTSIDE = {
    "outside": """
import numpy as np
def short(rollouts): return np.zeros(len(rollouts) - 1)
def text(rollouts): return ["good"] * len(rollouts)
def nothing(rollouts): return None
def infinite(rollouts): return np.where(np.isnan(rollouts.pred), np.inf, 0)
def broken(rollouts): return rollouts.scores
def by_position(rollouts): return np.arange(len(rollouts)) / len(rollouts)
def two(rollouts, other): return np.zeros(len(rollouts))
CONSTANT = 3
"""
}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing_like_it", "reward.batch_reward is 'nothing_like_it'. Fix: choose one of evoquality"),
        ("outside:short", "numbers of shape (4,) for 5 rollouts. Fix: return one per rollout"),
        ("outside:text", "returns ['good', 'good', 'good', 'good', 'good']. Fix: return one number per rollout"),
        ("outside:nothing", "numbers of shape () for 5 rollouts"),
        ("outside:infinite", "returns inf for an answer to image1. Fix: return finite numbers"),
        ("outside:broken", "AttributeError: 'Rollouts' object has no attribute 'scores', outside.py line 7. Fix: try"),
        ("outside:two", "missing a required argument: 'other'). Fix: give it the form function(rollouts"),
        ("outside:CONSTANT", "which is not a function but an int. Fix: name function(rollouts"),
        ("outside:missing", "and outside has no missing"),
    ],
)
def test_a_function_that_does_not_fit_is_named_with_its_fix(tmp_path, monkeypatch, name, said):
    monkeypatch.syspath_prepend(str(write_modules(tmp_path, OUTSIDE)))
    monkeypatch.delitem(sys.modules, "outside", raising=False)
    with pytest.raises(ValueError) as error:
        batch_reward(rollouts_from(IMAGES), BatchRewardSettings(name))
    assert said in str(error.value) and "Fix: " in str(error.value)


def test_a_reward_that_depends_on_the_order_of_the_rollouts_is_found_before_a_training(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(write_modules(tmp_path, OUTSIDE)))
    monkeypatch.delitem(sys.modules, "outside", raising=False)
    with pytest.raises(ValueError, match=r"come in another order\. Fix: use `groups`"):
        probe_batch_reward(BatchRewardSettings("outside:by_position"))


@pytest.mark.parametrize(
    ("changed", "where", "said"),
    [
        (["reward.batch_settings.gamma=0"], "reward.batch_reward", "gamma must be a positive number, got 0"),
        (["+reward.batch_settings.gama=1"], "reward.batch_reward", "unexpected keyword argument 'gama'"),
        (["reward.batch_reward=nope"], "reward.batch_reward", "is 'nope'"),
        (["reward.batch_weight=nan"], "reward.batch_reward", "reward.batch_weight is nan"),
        (["reward.batch_reward=null"], "reward.batch_settings", "has no effect while reward.batch_reward is null"),
        (["trainer.v1.trainer_mode=sync"], "trainer.v1.trainer_mode", "would be left out"),
        (
            ["trainer.v1.sampler.custom_sampler.name=null", "trainer.v1.sampler.custom_sampler.path=null"],
            "trainer.v1.sampler.custom_sampler.name",
            "is None; the batch reward is called by GroupStdSampler",
        ),
        (
            ["trainer.v1.sampler.sampler_kwargs.mode=drop", "trainer.v1.sampler.sampler_kwargs.metric=accuracy"],
            "trainer.v1.sampler.sampler_kwargs.metric",
            "whose weight is 0",
        ),
    ],
)
def test_the_doctor_names_a_wrong_setting(changed, where, said):
    found = check_settings(composed(RECIPE, *changed))
    (problem,) = [one for one in found if one.where == where]
    assert said in problem.what and problem.fix


def test_the_filter_may_look_at_the_batch_reward_only_where_there_is_one():
    metric = "trainer.v1.sampler.sampler_kwargs.metric=batch_reward"
    assert not check_settings(composed(RECIPE, metric))
    (problem,) = check_settings(composed("omniquality_r/stage1", metric))
    assert "is 'batch_reward', which is not a part of the reward" in problem.what


REWARD_RECIPES = sorted(path.stem for path in (RECIPES / "rewards").glob("*.yaml"))


@pytest.mark.parametrize("name", REWARD_RECIPES)
def test_a_recipe_is_short_says_its_source_and_runs_on_the_tiny_model_as_well(name):
    text = (RECIPES / "rewards" / f"{name}.yaml").read_text()
    assert len(text.splitlines()) <= 40 and text.splitlines()[1].startswith("# ")
    tiny = compose_recipe(f"rewards/{name}", ["omniquality_r=cpu_tiny_stage1"], RECIPES)
    assert tiny.trainer.device == "cpu" and not check_settings(tiny)  # of the full one test_doctor_recipes asks more
    assert (tiny.trainer.experiment_name, tiny.reward.batch_reward is None) == (f"rewards_{name}", False)


def test_the_shelf_is_read_without_importing_its_rewards():
    code = "import sys, omniq_verl.rewards.batch; print(any('scipy' in m or 'torch' in m for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True)
    assert done.stdout == "False\n"


def test_columns_of_different_lengths_are_no_rollouts():
    rollouts = rollouts_from(IMAGES)
    with pytest.raises(ValueError, match=r"columns of the rollouts differ in length.*Fix: give one value per rollout"):
        Rollouts(**{**vars(rollouts), "tokens": np.array([1])})
