"""The policy-loss recipes: the gradients of the papers' equations, and the entropy gate where it is exact."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from doctor_builders import RECIPES, composed

from omniq_verl.doctor.compose import compose_recipe
from omniq_verl.doctor.settings import check_settings

NAMES = sorted(path.stem for path in (RECIPES / "losses").glob("*.yaml"))
ROWS, TOKENS = 4, 6
LOSS = "actor_rollout_ref.actor.policy_loss"


def made_up() -> dict[str, np.ndarray]:
    """Log-probabilities that moved a little and a lot, answers of different lengths, both signs of the advantage."""
    rng = np.random.default_rng(3)
    old = rng.uniform(-3, -0.1, (ROWS, TOKENS))
    moved = rng.choice([0.0, 1e-4, -1e-4, 0.1, -0.1, 0.24, 0.6, -0.9], (ROWS, TOKENS))
    mask = (np.arange(TOKENS)[None, :] < np.array([6, 3, 5, 2])[:, None]).astype(float)
    advantages = np.array([1.2, -0.7, 0.4, -1.1])[:, None] * mask
    gate = rng.integers(0, 2, (ROWS, TOKENS)) * mask
    return {"old": old, "new": old + moved, "advantages": advantages, "mask": mask, "gate": gate}


BATCH = made_up()


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, dict]:
    path = tmp_path_factory.mktemp("losses") / "batch.json"
    path.write_text(json.dumps({name: value.tolist() for name, value in BATCH.items()} | {"recipes": NAMES}))
    script = Path(__file__).parents[1] / "builders" / "loss_gradients.py"
    done = subprocess.run([sys.executable, str(script), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def clipped(ratio: float, advantage: float, low: float, high: float) -> float:
    """Derivative of ``-min(r A, clip(r) A)`` by log r."""
    stuck = ratio > 1 + high if advantage > 0 else ratio < 1 - low
    return 0.0 if stuck else -ratio * advantage


def of_token(name: str, row: int, token: int) -> float:
    """Derivative of a token's term by its log-probability, from the paper's equation."""
    length = int(BATCH["mask"][row].sum())
    moves = BATCH["new"][row] - BATCH["old"][row]
    ratio, advantage = math.exp(moves[token]), BATCH["advantages"][row, token]
    if name == "gspo":
        return clipped(math.exp(moves[:length].mean()), advantage, 3e-4, 4e-4)
    if name == "cispo":
        return -min(ratio, 1.2) * advantage
    if name == "sapo":
        gate = 1 / (1 + math.exp(-(1.0 if advantage > 0 else 1.05) * (ratio - 1)))
        return -4 * gate * (1 - gate) * ratio * advantage
    return clipped(ratio, advantage, 0.2, 0.28 if name == "dapo_clip_higher" else 0.2)


def weight(name: str, row: int) -> float:
    """Share of a token in the mean: over all tokens, each answer's tokens, or a constant length."""
    if name in ("cispo", "dapo_clip_higher"):
        return 1 / BATCH["mask"].sum()
    return 1 / ROWS / (1024 if name == "dr_grpo" else BATCH["mask"][row].sum())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_the_papers_equation(found, name):
    expected = np.zeros((ROWS, TOKENS))
    for row, token in np.argwhere(BATCH["mask"]):
        expected[row, token] = of_token(name, row, token) * weight(name, row)
    gradient = np.array(found[name]["plain"]["gradient"])
    assert gradient == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert np.count_nonzero(gradient) >= 5  # or the comparison would show little


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_gate_takes_the_gradient_of_its_tokens_and_changes_no_other(found, name):
    plain, gated = (np.array(found[name][kind]["gradient"]) for kind in ("plain", "gated"))
    assert gated == pytest.approx(plain * BATCH["gate"], abs=1e-15)
    assert np.abs(plain - gated).max() > 0


@pytest.mark.slow
def test_the_recipes_differ_in_what_they_say(found):
    modes = {"gspo": "gspo", "cispo": "cispo", "sapo": "sapo", "dr_grpo": "vanilla", "dapo_clip_higher": "vanilla"}
    assert {name: one["mode"] for name, one in found.items()} == modes
    assert found["dr_grpo"]["loss_scale_factor"] == 1024


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_short_and_takes_several_optimiser_steps_to_a_batch(name):
    assert len((RECIPES / "losses" / f"{name}.yaml").read_text().splitlines()) <= 40
    full = composed(f"losses/{name}", f"{LOSS}.gate_rho=0.2")
    assert full.data.train_batch_size / full.actor_rollout_ref.actor.ppo_mini_batch_size == 4
    tiny = ["omniquality_r=cpu_tiny_stage1", "actor_rollout_ref.actor.ppo_mini_batch_size=4"]
    found = compose_recipe(f"losses/{name}", tiny, RECIPES)
    assert found.data.train_batch_size == 16 and found.trainer.device == "cpu"
    assert not check_settings(full) and not check_settings(found)


@pytest.mark.parametrize(
    ("recipe", "changed", "said", "fix"),
    [
        ("losses/gspo", [f"{LOSS}.loss_mode=geo_mean"], "is geo_mean, which is not linear", "choose one of vanilla"),
        (
            "losses/sapo",
            [f"{LOSS}.gate_denominator=gated"],
            "sapo takes the mean of each answer",
            "gate_denominator=all",
        ),
        ("losses/dr_grpo", [f"{LOSS}.gate_denominator=gated"], "seq-mean-token-sum-norm", "gate_denominator=all"),
        ("losses/gspo", [f"{LOSS}.gate_denominator=gated"], "seq-mean-token-mean", "gate_denominator=all"),
        (
            "losses/sapo",
            [f"{LOSS}.gate_denominator=gated", "actor_rollout_ref.actor.loss_agg_mode=token-mean"],
            "whatever loss_agg_mode says",
            "gate_denominator=all",
        ),
    ],
)
def test_where_the_gate_would_not_be_exact_it_is_an_error_with_its_fix(recipe, changed, said, fix):
    (problem,) = check_settings(composed(recipe, f"{LOSS}.gate_rho=0.2", *changed))
    assert said in problem.what and fix in problem.fix
    assert not check_settings(composed(recipe, *changed))  # without the gate all of it is allowed
