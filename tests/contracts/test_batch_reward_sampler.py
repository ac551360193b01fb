"""The batch reward where training calls it: in the sampler, on a real TransferQueue. The rollouts are made up."""

import json
import os
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from batch_reward_builders import rollouts_from

pytestmark = pytest.mark.slow

KONIQ = [([3.0, 4.0, 3.5], 4.2), ([2.0, 2.5, 1.0], 1.5), ([2.5, 2.5, 2.5], 3.0)]
SPAQ = [([1.0, 5.0, 3.0], 2.0), ([4.0, None, 2.0], 4.0)]
FORMAT = 0.5
"""What the per-sample reward gives every answer."""


@pytest.fixture(scope="module")
def queue() -> Iterator[None]:
    import ray
    import transfer_queue as tq
    import verl.trainer.ppo.v1  # noqa: F401  (first, as a training does: it imports our trainer, and that our sampler)

    os.environ.update({"VERL_PLATFORM": "cpu", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"})
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    tq.init({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}})
    yield
    tq.close()
    ray.shutdown()


def put(number: int, source: str, answers: list, label: float, order: list[int]) -> None:
    """The finished rollouts of one prompt, in the order in which they end."""
    import torch
    import transfer_queue as tq
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    info = {"id": f"{source}/{number}", "task": "technical", "scale_low": 1.0, "scale_high": 5.0, "raw_low": 0.0}
    info |= {"raw_high": 100.0, "details": json.dumps({"standard_deviation": 12.5})}
    rows = []
    for session in order:
        length = 3 + session
        own = {"score": FORMAT, "target": label, "accuracy": 0.0, "status": 0.0, "level_asked": 1.0}
        own["pred"] = float("nan") if answers[session] is None else answers[session]
        row = {
            "responses": torch.arange(length),
            "response_mask": torch.ones(length, dtype=torch.int64),
            "loss_mask": torch.ones(length, dtype=torch.int64),
            "rm_scores": torch.tensor([0.0] * (length - 1) + [FORMAT]),
            "multi_modal_inputs": {"pixels": torch.ones(2, 2)},
            "uid": f"group{number}",
            "session_id": session,
            "data_source": source,
            "extra_info": info,
            "extra_fields": {"reward_extra_info": own},
        }
        rows.append(row)
    keys = [f"group{number}_{session}_0" for session in order]
    tags = [{"status": "success", "global_steps": 1, "seq_len": 10 + session} for session in order]
    tq.kv_batch_put(keys=keys, fields=list_of_dict_to_tensordict(rows), tags=tags, partition_id="train")
    prompt = {"is_prompt": True, "status": "finished", "global_steps": 1}
    tq.kv_batch_put(keys=[f"group{number}"], tags=[prompt], partition_id="train")


@pytest.fixture
def sample(queue):
    """Sample with a batch reward; returns the batch, its metrics and the rewards by key. Leaves the queue empty."""
    import transfer_queue as tq

    from omniq_verl.filters.batch_reward_verl import BatchReward
    from omniq_verl.filters.group_std_verl import GroupStdSampler
    from omniq_verl.rewards.batch import BatchRewardSettings

    def run(images: list[tuple], batch: int, chosen: BatchRewardSettings, seed: int = 0, drift=None, **settings):
        waiting = list(enumerate(images))
        rng = np.random.default_rng(seed)

        def refill(prompts: int) -> None:
            taken = [waiting.pop(0) for _ in range(min(prompts, len(waiting)))]
            for ref in rng.permutation(len(taken)).tolist():
                number, (source, answers, label) = taken[ref]
                put(number, source, answers, label, rng.permutation(len(answers)).tolist())

        kwargs = {"trainer_config": {}, "max_off_policy_threshold": 8, "max_off_policy_strategy": "drop"}
        sampler = GroupStdSampler(
            trainer_mode="sync", sampler_kwargs={"poll_interval": 0.01, **settings}, refill_fn=refill, **kwargs
        )
        sampler.batch_reward = BatchReward(chosen, lambda answers: [" ".join(map(str, answer)) for answer in answers])
        sampler.drift = drift
        refill(batch)
        found, metrics = sampler.sample(global_steps=1, partition_id="train", batch_size=batch)
        stored = tq.kv_batch_get(keys=found.keys, partition_id="train", select_fields=["rm_scores"])["rm_scores"]
        return found, metrics, {key: row.tolist() for key, row in zip(found.keys, stored, strict=True)}

    yield run
    left = (tq.kv_list("train") or {}).get("train")
    if left:
        tq.kv_clear(keys=list(left), partition_id="train")


def of_sources() -> list[tuple]:
    return [("koniq", *image) for image in KONIQ] + [("spaq", *image) for image in SPAQ]


def chosen(name: str = "visualquality_r1", weight: float = 1.0, **settings: object):
    from omniq_verl.rewards.batch import BatchRewardSettings

    return BatchRewardSettings(name, settings, weight)


def expected(weight: float = 1.0) -> dict[str, float]:
    """The rewards of all rollouts, by key, from each source's images alone."""
    from omniq_verl.rewards.batch.visualquality_r1 import visualquality_r1

    found = [*visualquality_r1(rollouts_from(KONIQ)), *visualquality_r1(rollouts_from(SPAQ))]
    keys = [f"group{number}_{session}_0" for number in range(5) for session in range(3)]
    return {key: FORMAT + weight * value for key, value in zip(keys, found, strict=True)}


def test_a_rollout_is_trained_on_the_sum_of_both_rewards_at_its_last_token(sample):
    batch, metrics, stored = sample(of_sources(), 5, chosen(weight=2.0))
    assert len(batch.keys) == 15
    for key, reward in expected(2.0).items():
        assert stored[key][-1] == pytest.approx(reward, abs=1e-6) and not any(stored[key][:-1]), key
    assert metrics["filter/reward_drawn"] == pytest.approx(np.mean(list(expected(2.0).values())))
    plain = (np.array(list(expected().values())) - FORMAT).reshape(5, 3)
    assert metrics["batch_reward/mean"] == pytest.approx(plain.mean())
    assert metrics["batch_reward/group_std"] == pytest.approx(plain.std(axis=1).mean())
    assert metrics["filter/reward_group_std"] == pytest.approx(2.0 * plain.std(axis=1).mean())
    assert metrics["batch_reward/seconds"] > 0


def test_neither_the_order_of_arrival_nor_padding_changes_a_bit(sample):
    import transfer_queue as tq

    from omniq_verl.trainer.padding_verl import pad_with_masked_copies

    first, _, stored = sample(of_sources(), 5, chosen(), seed=1)
    padded = pad_with_masked_copies(first, 8)
    rows = tq.kv_batch_get(keys=padded.keys[15:], partition_id="train", select_fields=["rm_scores"])["rm_scores"]
    assert len(padded.keys) == 16 and [float(row.sum()) for row in rows] == [0.0]
    tq.kv_clear(keys=padded.keys, partition_id="train")
    second, _, again = sample(of_sources(), 5, chosen(), seed=2)
    assert second.keys == first.keys and again == stored


def test_the_filter_looks_at_the_batch_reward_and_every_draw_is_compared_by_itself(sample):
    batch, metrics, stored = sample(of_sources(), 5, chosen(), mode="drop", metric="batch_reward")
    assert {key.split("_")[0] for key in batch.keys} == {"group0", "group1", "group3", "group4"}  # not the one of 2.5s
    assert metrics["filter/groups_dropped"] == 1
    assert stored["group0_0_0"][-1] == pytest.approx(expected()["group0_0_0"], abs=1e-6)  # compared before the filter


def test_a_refill_is_another_draw(sample):
    images = [("koniq", [2.5, 2.5], 3.0), ("koniq", [1.0, 3.0], 2.0), ("koniq", [4.0, 3.0], 4.0), *of_sources()[:1]]
    batch, metrics, stored = sample(images, 2, chosen(), mode="refill", metric="batch_reward")
    assert metrics["filter/draws"] == 2
    from omniq_verl.rewards.batch.visualquality_r1 import visualquality_r1

    draws = [images[:2], images[2:4]]
    alone = [visualquality_r1(rollouts_from([image[1:] for image in draw])) for draw in draws]
    assert stored["group1_1_0"][-1] == pytest.approx(FORMAT + alone[0][3], abs=1e-6)
    kept = next(key for key in batch.keys if key.startswith(("group2", "group3")))
    position = {"group2": 0, "group3": 2}[kept.split("_")[0]] + int(kept.split("_")[1])
    assert stored[kept][-1] == pytest.approx(FORMAT + alone[1][position], abs=1e-6)


def test_a_second_judge_sees_every_rollout_and_changes_none(sample, tmp_path):
    from omniq_verl.adapters.drift_alarm import DriftAlarm
    from omniq_verl.filters.drift_verl import DriftWatch
    from omniq_verl.rewards.batch import BatchRewardSettings

    table = tmp_path / "other.csv"
    names = [f"{source}/{number}" for number, (source, _, _) in enumerate(of_sources())]
    table.write_text("id,score\n" + "".join(f"{name},3.0\n" for name in names))
    judge = BatchRewardSettings("omniq_verl.rewards.batch.score_table:closeness", {"path": str(table)})
    alarm = DriftAlarm(window=15)
    for step in range(14):
        alarm.add(-100.0 + step, 100.0 - step)
    watch = DriftWatch(judge, alarm, lambda answers: [""] * len(answers))
    _, metrics, stored = sample(of_sources(), 5, chosen(weight=2.0), drift=watch, mode="drop", metric="batch_reward")
    scores = [score for _, answers, _ in of_sources() for score in answers]
    closeness = [0.0 if score is None else 1 - abs(score - 3.0) / 4 for score in scores]
    assert metrics["drift/judge"] == pytest.approx(np.mean(closeness))
    assert metrics["drift/reward"] == pytest.approx(metrics["filter/reward_drawn"])  # of those, too, that are dropped
    assert metrics["drift/alarms"] == 1.0 and watch.pop_metrics() == {}
    assert all(stored[key][-1] == pytest.approx(expected(2.0)[key], abs=1e-6) for key in stored)


def test_columns_are_what_the_rows_say():
    from omniq_verl.filters.batch_reward_verl import label_std, rollouts_of

    info = {"scale_low": 1.0, "scale_high": 5.0, "raw_low": 0.0, "raw_high": 100.0}
    details = {"details": json.dumps({"standard_deviation": 12.5})}
    row = SimpleNamespace(id="a", task="technical", data_source="koniq", parts={"pred": 3.0, "target": 4.0, "x": 1.0})
    other = SimpleNamespace(id="b", task="degradation", data_source="dq", parts={"x": 2.0})
    rollouts = rollouts_of([row, other], ["g1", "g0"], ["one", "two"], [5, 6], [{**info, **details}, {}])
    assert rollouts.label_std[0] == 0.5 and np.isnan(rollouts.label_std[1])
    assert rollouts.pred[0] == 3.0 and np.isnan([rollouts.pred[1], rollouts.low[1]]).all()
    assert rollouts.groups.tolist() == [0, 1] and rollouts.parts["x"].tolist() == [1.0, 2.0]
    for wrong in ("{", "[]", '{"standard_deviation": "many"}', '{"standard_deviation": -1}', None, "[" * 10**5):
        assert label_std({**info, "details": wrong}) is None
    assert label_std({**details, **info, "raw_high": 0.0}) is None and label_std({**details, "raw_low": None}) is None
