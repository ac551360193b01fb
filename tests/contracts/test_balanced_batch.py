"""How the trainer splits a batch over ranks: whole groups, balanced, and not sorted by length."""

from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta

from omniq_verl.trainer.trainer_verl import OmniqTrainerSync

GROUPS, ANSWERS, RANKS = 8, 4, 2


@pytest.mark.parametrize("seed", range(4))
def test_each_rank_trains_on_its_groups_in_the_order_of_the_batch(seed):
    trainer = OmniqTrainerSync.__new__(OmniqTrainerSync)  # without Ray
    trainer.use_critic, trainer._shared_prompt = False, True
    trainer.actor_rollout_wg = SimpleNamespace(_dispatch_info={"actor": list(range(RANKS))})
    trainer.tokenizer = SimpleNamespace(eos_token_id=0)
    actor, by_tokens = {"ppo_mini_batch_size": GROUPS // 2, "use_dynamic_bsz": True}, {"log_prob_use_dynamic_bsz": True}
    models = {"actor": actor, "rollout": {"n": ANSWERS, **by_tokens}, "ref": by_tokens}
    trainer.config = OmegaConf.create({"actor_rollout_ref": models})
    lengths = np.random.default_rng(seed).integers(100, 2000, GROUPS * ANSWERS)
    keys = [f"{group}_{answer}_0" for group in range(GROUPS) for answer in range(ANSWERS)]
    tags = [{"seq_len": int(length), "status": "success"} for length in lengths]
    batch = trainer._balance_batch(KVBatchMeta(partition_id="train", keys=keys, tags=tags), {})
    groups = [int(key.split("_")[0]) for key in batch.keys]
    half = len(groups) // RANKS
    for share in (groups[:half], groups[half:]):
        assert share == sorted(share) and all(share.count(group) == ANSWERS for group in share)
    assert sorted(batch.keys) == sorted(keys)
    assert [tag["seq_len"] for tag in batch.tags] == [lengths[keys.index(key)] for key in batch.keys]
