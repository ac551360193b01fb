"""The batch reward where training calls it: in the sampler, on a real TransferQueue. The rollouts are made up."""

import json
import os
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from batch_reward_builders import rollouts_from
from queue_builders import FORMAT, Rank, Worker, put

pytestmark = pytest.mark.slow

KONIQ = [([3.0, 4.0, 3.5], 4.2), ([2.0, 2.5, 1.0], 1.5), ([2.5, 2.5, 2.5], 3.0)]
SPAQ = [([1.0, 5.0, 3.0], 2.0), ([4.0, None, 2.0], 4.0)]


@pytest.fixture(scope="module")
def queue() -> Iterator[None]:
    import queue_builders
    import ray
    import transfer_queue as tq
    import verl.trainer.ppo.v1  # noqa: F401  (first, as a training does: it imports our trainer, and that our sampler)

    os.environ.update({"VERL_PLATFORM": "cpu", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"})
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(queue_builders)  # Ray's workers do not find the tests' modules
    tq.init({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}})
    yield
    tq.close()
    ray.shutdown()


def sampler_with(chosen, refill=None, **settings: object):
    """The sampler as the trainer builds it."""
    from omniq_verl.filters.batch_reward_verl import BatchReward
    from omniq_verl.filters.group_std_verl import GroupStdSampler

    kwargs = {"trainer_config": {}, "max_off_policy_threshold": 8, "max_off_policy_strategy": "drop"}
    sampler = GroupStdSampler(
        trainer_mode="sync", sampler_kwargs={"poll_interval": 0.01, **settings}, refill_fn=refill, **kwargs
    )
    sampler.batch_reward = BatchReward(chosen, lambda answers: [" ".join(map(str, answer)) for answer in answers])
    return sampler


def stored(batch) -> dict[str, list[float]]:
    """The rewards of the tokens of a batch's rollouts, by key."""
    import transfer_queue as tq

    found = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["rm_scores"])["rm_scores"]
    return {key: row.tolist() for key, row in zip(batch.keys, found, strict=True)}


def clear(partition: str = "train") -> None:
    import transfer_queue as tq

    left = (tq.kv_list(partition) or {}).get(partition)
    if left:
        tq.kv_clear(keys=list(left), partition_id=partition)


@pytest.fixture
def sample(queue):
    """Sample with a batch reward; returns the batch, its metrics and the rewards by key. Leaves the queue empty."""

    def run(images: list[tuple], batch: int, chosen, seed: int = 0, drift=None, **settings: object):
        waiting = list(enumerate(images))
        rng = np.random.default_rng(seed)

        def refill(prompts: int) -> None:
            taken = [waiting.pop(0) for _ in range(min(prompts, len(waiting)))]
            for ref in rng.permutation(len(taken)).tolist():
                number, (source, answers, label) = taken[ref]
                put(number, source, answers, label, rng.permutation(len(answers)).tolist())

        sampler = sampler_with(chosen, refill, **settings)
        sampler.drift = drift
        refill(batch)
        found, metrics = sampler.sample(global_steps=1, partition_id="train", batch_size=batch)
        return found, metrics, stored(found)

    yield run
    clear()
    clear("val")


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
    batch, metrics, rewards = sample(of_sources(), 5, chosen(weight=2.0))
    assert len(batch.keys) == 15
    for key, reward in expected(2.0).items():
        assert rewards[key][-1] == pytest.approx(reward, abs=1e-6) and not any(rewards[key][:-1]), key
    assert metrics["filter/reward_drawn"] == pytest.approx(np.mean(list(expected(2.0).values())))
    plain = (np.array(list(expected().values())) - FORMAT).reshape(5, 3)
    assert metrics["batch_reward/mean"] == pytest.approx(plain.mean())
    assert metrics["batch_reward/group_std"] == pytest.approx(plain.std(axis=1).mean())
    assert metrics["filter/reward_group_std"] == pytest.approx(2.0 * plain.std(axis=1).mean())
    assert metrics["batch_reward/seconds"] > 0


def test_neither_the_order_of_arrival_nor_padding_changes_a_bit(sample):
    import transfer_queue as tq

    from omniq_verl.trainer.padding_verl import pad_with_masked_copies

    first, _, rewards = sample(of_sources(), 5, chosen(), seed=1)
    padded = pad_with_masked_copies(first, 8)
    rows = tq.kv_batch_get(keys=padded.keys[15:], partition_id="train", select_fields=["rm_scores"])["rm_scores"]
    assert len(padded.keys) == 16 and [float(row.sum()) for row in rows] == [0.0]
    tq.kv_clear(keys=padded.keys, partition_id="train")
    second, _, again = sample(of_sources(), 5, chosen(), seed=2)
    assert second.keys == first.keys and again == rewards


@pytest.mark.parametrize("name", ["visualquality_r1", "listwise"])
def test_two_workers_and_two_ranks_have_the_rewards_of_one(sample, name):
    """Two processes finish the rollouts side by side, and verl splits the batch over two that train."""
    import ray
    from verl.single_controller.base.decorator import _split_args_kwargs_data_proto

    from omniq_verl.trainer.padding_verl import pad_with_masked_copies

    _, _, alone = sample(of_sources(), 5, chosen(name), seed=1)
    clear()
    workers = [ray.remote(Worker).remote() for _ in range(2)]
    prompts = [(number, *image, range(3)) for number, image in enumerate(of_sources())]
    ray.get([worker.put.remote(prompts[part::2]) for part, worker in enumerate(workers)])
    batch, _ = sampler_with(chosen(name)).sample(global_steps=1, partition_id="train", batch_size=5)
    padded = pad_with_masked_copies(batch, 2)
    (shares,), _ = _split_args_kwargs_data_proto(2, padded)
    ranks = [ray.remote(Rank).remote() for _ in range(2)]
    of_ranks = ray.get([rank.rewards.remote(share) for rank, share in zip(ranks, shares, strict=True)])
    assert [len(share) for share in of_ranks] == [8, 8]
    together = {**of_ranks[0], **of_ranks[1]}
    (padding,) = [key for key in together if key.startswith("pad")]
    assert together.pop(padding) == 0.0
    assert together == {key.rsplit("_", 1)[0]: row[-1] for key, row in alone.items()}  # to the last bit
    # A reward that was computed within a rank would be another one: a group lies on both.
    groups = [{key.split("_")[0] for key in share} for share in of_ranks]
    assert groups[0] & groups[1]


def test_validation_has_no_batch_reward(sample):
    for number, image in enumerate(of_sources()):
        put(number, *image, range(3), "val")
    batch, metrics = sampler_with(chosen()).sample(global_steps=1, partition_id="val", batch_size=5)
    assert len(batch.keys) == 15 and {row[-1] for row in stored(batch).values()} == {FORMAT}
    assert not [key for key in metrics if key.startswith("batch_reward/")]


def test_a_resumed_run_has_the_rewards_of_one_that_was_not_stopped(sample):
    """The hook carries nothing from step to step: a new sampler gives a later step the same rewards and metrics."""
    later = [("koniq", [2.0, 4.5, 3.0], 2.5), ("koniq", [1.5, 3.0, 5.0], 4.0)]

    def step(sampler, images: list[tuple]) -> tuple[dict[str, list[float]], dict[str, float]]:
        for number, image in enumerate(images):
            put(number, *image, range(3))
        batch, metrics = sampler.sample(global_steps=1, partition_id="train", batch_size=len(images))
        rewards = stored(batch)
        clear()
        return rewards, {key: value for key, value in metrics.items() if not key.endswith("seconds")}

    running = sampler_with(chosen())
    step(running, of_sources())
    assert step(running, later) == step(sampler_with(chosen()), later)


def test_a_failed_rollout_is_compared_with_nothing(sample):
    from omniq_verl.rewards.batch.visualquality_r1 import visualquality_r1

    for number, (source, answers, label) in enumerate(of_sources()[:3]):
        put(number, source, answers, label, [0, 2] if number == 1 else range(3))
    batch, _ = sampler_with(chosen()).sample(global_steps=1, partition_id="train", batch_size=3)
    rest = visualquality_r1(rollouts_from([KONIQ[0], ([2.0, 1.0], 1.5), KONIQ[2]]))
    keys = [f"group0_{n}_0" for n in range(3)] + ["group1_0_0", "group1_2_0"] + [f"group2_{n}_0" for n in range(3)]
    assert {key: row[-1] for key, row in stored(batch).items()} == pytest.approx(
        dict(zip(keys, (FORMAT + rest).tolist(), strict=True)), abs=1e-6
    )


def test_the_filter_looks_at_the_batch_reward_and_every_draw_is_compared_by_itself(sample):
    batch, metrics, rewards = sample(of_sources(), 5, chosen(), mode="drop", metric="batch_reward")
    assert {key.split("_")[0] for key in batch.keys} == {"group0", "group1", "group3", "group4"}  # not the one of 2.5s
    assert metrics["filter/groups_dropped"] == 1
    assert rewards["group0_0_0"][-1] == pytest.approx(expected()["group0_0_0"], abs=1e-6)  # compared before the filter


def test_a_refill_is_another_draw(sample):
    images = [("koniq", [2.5, 2.5], 3.0), ("koniq", [1.0, 3.0], 2.0), ("koniq", [4.0, 3.0], 4.0), *of_sources()[:1]]
    batch, metrics, rewards = sample(images, 2, chosen(), mode="refill", metric="batch_reward")
    assert metrics["filter/draws"] == 2
    from omniq_verl.rewards.batch.visualquality_r1 import visualquality_r1

    draws = [images[:2], images[2:4]]
    alone = [visualquality_r1(rollouts_from([image[1:] for image in draw])) for draw in draws]
    assert rewards["group1_1_0"][-1] == pytest.approx(FORMAT + alone[0][3], abs=1e-6)
    kept = next(key for key in batch.keys if key.startswith(("group2", "group3")))
    position = {"group2": 0, "group3": 2}[kept.split("_")[0]] + int(kept.split("_")[1])
    assert rewards[kept][-1] == pytest.approx(FORMAT + alone[1][position], abs=1e-6)


SCALES = [{"task": "technical"}, {"task": "unknown"}, {"task": "technical", "scale_low": "1", "scale_high": 5.0}]
"""A row without a scale is on its task's; a task or a scale that is not known has none."""


def test_a_second_judge_sees_every_rollout_and_changes_none(sample, tmp_path):
    from omniq_verl.adapters.drift_alarm import DriftAlarm
    from omniq_verl.filters.drift_verl import DriftWatch
    from omniq_verl.rewards.batch import BatchRewardSettings

    table = tmp_path / "other.csv"
    names = [f"{source}/{number}" for number, (source, _, _) in enumerate(of_sources())]
    table.write_text("id,score\n" + "".join(f"{name},3.0\n" for name in names))
    judge = BatchRewardSettings("omniq_verl.rewards.batch.score_table:closeness", {"path": str(table)})
    scores = [score for _, answers, _ in of_sources() for score in answers]
    closeness = [0.0 if score is None else 1 - abs(score - 3.0) / 4 for score in scores]
    alarm = DriftAlarm(window=15)
    for before in range(14, 0, -1):  # the reward has risen and the judgement fallen by 1 a step
        alarm.add(np.mean(list(expected(2.0).values())) - before, np.mean(closeness) + before)
    watch = DriftWatch(judge, alarm, lambda answers: [""] * len(answers))
    _, metrics, stored = sample(of_sources(), 5, chosen(weight=2.0), drift=watch, mode="drop", metric="batch_reward")
    assert metrics["drift/judge"] == pytest.approx(np.mean(closeness))
    assert metrics["drift/reward"] == pytest.approx(metrics["filter/reward_drawn"])  # of those, too, that are dropped
    assert metrics["drift/alarms"] == 1.0 and watch.pop_metrics() == {}
    assert all(stored[key][-1] == pytest.approx(expected(2.0)[key], abs=1e-6) for key in stored)


def test_columns_are_what_the_rows_say():
    from omniq_verl.filters.batch_reward_verl import label_std, rollouts_of

    info = {"scale_low": 1.0, "scale_high": 5.0, "raw_low": 0.0, "raw_high": 100.0}
    details = {"details": json.dumps({"standard_deviation": 12.5})}
    row = SimpleNamespace(id="a", task="technical", data_source="koniq", parts={"pred": 3.0, "target": 4.0, "x": 1.0})
    parts = {"x": torch.tensor(2.0), "pred": "good"}  # of someone else's reward function
    other = SimpleNamespace(id="b", task="degradation", data_source="dq", parts=parts)
    rollouts = rollouts_of([row, other], ["g1", "g0"], ["one", "two"], [5, 6], [{**info, **details}, {}])
    assert rollouts.label_std[0] == 0.5 and np.isnan(rollouts.label_std[1])
    assert rollouts.pred[0] == 3.0 and np.isnan([rollouts.pred[1], rollouts.low[1]]).all()
    own, none, broken = rollouts_of([row] * 3, "abc", [""] * 3, [1] * 3, SCALES).low
    assert own == 1.0 and np.isnan([none, broken]).all()
    assert rollouts.groups.tolist() == [0, 1] and rollouts.parts["x"].tolist() == [1.0, 2.0]
    for wrong in ("{", "[]", '{"standard_deviation": "many"}', '{"standard_deviation": -1}', None, "[" * 10**5):
        assert label_std({**info, "details": wrong}) is None
    assert label_std({**details, **info, "raw_high": 0.0}) is None and label_std({**details, "raw_low": None}) is None
