"""Rows per micro-batch, which padding after a filter has to fit, as verl reads them from a recipe."""

import pytest
from doctor_builders import composed

from omniq_verl.trainer.trainer_verl import _micro_batches

ROLLOUT, REF, ACTOR = "actor_rollout_ref.rollout", "actor_rollout_ref.ref", "actor_rollout_ref.actor"
SIZES = (
    f"{ACTOR}.ppo_micro_batch_size_per_gpu=2",
    f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=8",
    f"{REF}.log_prob_micro_batch_size_per_gpu=4",
)


@pytest.mark.parametrize(
    ("by_tokens", "update", "forward"),
    [((False, False, False), 2, [8, 4]), ((True, True, True), 1, []), ((True, True, False), 1, [4])],
)
def test_passes_that_verl_splits_by_tokens_need_no_padding(by_tokens, update, forward):
    actor, rollout, ref = (str(one).lower() for one in by_tokens)
    config = composed(
        "omniquality_r/stage2",
        *SIZES,
        f"{ACTOR}.use_dynamic_bsz={actor}",
        f"{ROLLOUT}.log_prob_use_dynamic_bsz={rollout}",
        f"{REF}.log_prob_use_dynamic_bsz={ref}",
    )
    found = _micro_batches(config.actor_rollout_ref)
    assert found == {"micro_rows": update, "forward_micro_rows": forward}
