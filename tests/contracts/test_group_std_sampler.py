"""The group-std filter as verl's sampler, on a real TransferQueue. What is made up is the rollouts."""

import itertools
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow

SPREAD, FLAT, WRONG = [0.2, 0.9, 0.4], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def queue() -> Iterator[None]:
    import ray
    import transfer_queue as tq

    environment = {"VERL_PLATFORM": "cpu", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    os.environ.update(environment)
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    tq.init({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}})
    yield
    tq.close()
    ray.shutdown()


Parts = Callable[[float], dict[str, float]]


def our_parts(accuracy: float) -> dict[str, float]:
    """The parts of our reward that the sampler looks at; in ``score`` every answer differs."""
    return {"accuracy": accuracy, "score": accuracy + random.random(), "status": 0.0, "level_asked": 1.0}


class Rollouts:
    """Groups that are done as soon as they are asked for, in a given order."""

    def __init__(self, accuracies: list[list[float]], parts: Parts):
        self._parts = parts
        self._waiting = iter(accuracies)
        self._numbers = itertools.count()
        self.asked: list[int] = []

    def __call__(self, prompts: int) -> None:
        self.asked.append(prompts)
        for accuracies in itertools.islice(self._waiting, prompts):
            self._finish(f"group{next(self._numbers)}", accuracies)

    def _finish(self, group: str, accuracies: list[float]) -> None:
        import torch
        import transfer_queue as tq
        from verl.utils.tensordict_utils import list_of_dict_to_tensordict

        rows = [
            {
                "responses": torch.arange(3 + number),
                "response_mask": torch.ones(3 + number, dtype=torch.int64),
                "loss_mask": torch.ones(3 + number, dtype=torch.int64),
                "rm_scores": torch.full((3 + number,), accuracy),
                "multi_modal_inputs": {"pixels": torch.ones(2, 2)},
                "uid": group,
                "session_id": number,
                "data_source": "koniq",
                "extra_info": {"id": f"koniq/{group}"},
                "extra_fields": {"reward_extra_info": self._parts(accuracy)},
            }
            for number, accuracy in enumerate(accuracies)
        ]
        keys = [f"{group}_{number}_0" for number in range(len(rows))]
        tags = [{"status": "success", "global_steps": 1, "seq_len": 10 + number} for number in range(len(rows))]
        if rows:
            tq.kv_batch_put(keys=keys, fields=list_of_dict_to_tensordict(rows), tags=tags, partition_id="train")
        prompt = {"is_prompt": True, "status": "finished" if rows else "failure", "global_steps": 1}
        tq.kv_batch_put(keys=[group], tags=[prompt], partition_id="train")


@pytest.fixture
def sampler(queue):
    """Our sampler, as the trainer makes it."""
    from omniq_verl.filters.group_std_verl import GroupStdSampler

    def made(refill: Callable[[int], None], **settings: object) -> GroupStdSampler:
        return GroupStdSampler(
            trainer_mode="sync",
            trainer_config={},
            max_off_policy_threshold=8,
            max_off_policy_strategy="drop",
            sampler_kwargs={"poll_interval": 0.01, **settings},
            refill_fn=refill,
        )

    return made


@pytest.fixture
def sample(sampler):
    """Sample a batch of groups with these accuracies, as the trainer does; leaves the queue empty."""
    import transfer_queue as tq

    def run(accuracies: list[list[float]], batch: int = 4, parts: Parts = our_parts, **settings: object):
        rollouts = Rollouts(accuracies, parts)
        own = sampler(rollouts, **settings)
        rollouts(batch)
        found, metrics = own.sample(global_steps=1, partition_id="train", batch_size=batch)
        return found, metrics, rollouts

    yield run
    left = tq.kv_list("train") or {}
    if left.get("train"):
        tq.kv_clear(keys=list(left["train"]), partition_id="train")


def groups_in(batch) -> set[str]:
    return {group_of(key) for key in batch.keys}


def group_of(key: str) -> str:
    return key.split("_")[0]


def left_in_queue() -> set[str]:
    import transfer_queue as tq

    return set((tq.kv_list("train") or {}).get("train", {}))


@pytest.mark.parametrize("mode", ["all", "drop"])
def test_the_mean_reward_is_of_all_rollouts_whatever_is_kept(sample, mode):
    parts = {"parts": lambda accuracy: {"accuracy": accuracy, "score": accuracy, "status": 0.0}}
    _, metrics, _ = sample([SPREAD, FLAT, WRONG, FLAT], mode=mode, **parts)
    assert metrics["filter/reward_drawn"] == pytest.approx((1.5 + 1.5 + 0.0 + 1.5) / 12)
    _, metrics, _ = sample([SPREAD] * 4, mode=mode, parts=lambda accuracy: {"accuracy": accuracy})
    assert "filter/reward_drawn" not in metrics  # of someone else's reward


def test_all_trains_on_every_group(sample):
    batch, metrics, rollouts = sample([SPREAD, FLAT, WRONG, SPREAD])
    assert len(batch.keys) == 12
    assert metrics["filter/groups_kept"] == 4
    assert metrics["filter/groups_dropped"] == 0
    assert metrics["parse/koniq/ok"] == 12
    assert rollouts.asked == [4]


def test_drop_keeps_the_groups_that_spread_and_counts_the_others(sample):
    batch, metrics, rollouts = sample([SPREAD, FLAT, WRONG, SPREAD], mode="drop")
    assert groups_in(batch) == {"group0", "group3"}
    assert rollouts.asked == [4]  # smaller batch, no further draw
    assert metrics["filter/groups_kept"] == metrics["filter/groups_dropped"] == metrics["filter/dropped_no_spread"] == 2
    assert metrics["filter/dropped_at_0.0_to_0.2"] == metrics["filter/dropped_at_0.4_to_0.6"] == 1
    assert left_in_queue() == set(batch.keys)


def test_where_no_group_is_degenerate_drop_is_all(sample):
    batch, metrics, _ = sample([SPREAD] * 4, mode="drop")
    assert len(groups_in(batch)) == 4
    assert metrics["filter/groups_dropped"] == 0


def test_it_is_the_accuracy_that_must_spread_not_the_sum(sample):
    # "score" differs within every group made here.
    batch, _, _ = sample([SPREAD, FLAT, FLAT, SPREAD], mode="drop")
    assert len(groups_in(batch)) == 2
    batch, _, _ = sample([SPREAD, FLAT, FLAT, SPREAD], mode="drop", metric="score")
    assert len(groups_in(batch)) == 4


def test_drop_draws_again_where_nothing_was_kept(sample):
    batch, metrics, rollouts = sample([FLAT] * 4 + [FLAT, SPREAD, FLAT, FLAT], mode="drop")
    assert groups_in(batch) == {"group5"}
    assert rollouts.asked == [4, 4]
    assert metrics["filter/draws"] == 2


@pytest.mark.parametrize("mode", ["drop", "refill"])
def test_where_every_group_is_degenerate_it_ends_with_a_clear_error(sample, mode):
    from omniq_verl.filters.group_std_verl import NothingToTrainOn

    with pytest.raises(NothingToTrainOn, match=r"in 3 draws no group's accuracy spread by more than tau = 0\.001"):
        sample([FLAT] * 12, mode=mode, max_refills=2)
    assert left_in_queue() == set()


def test_where_every_rollout_failed_the_error_does_not_blame_the_policy(sample):
    from omniq_verl.filters.group_std_verl import NothingToTrainOn

    with pytest.raises(NothingToTrainOn, match="every rollout of 12 prompts failed"):
        sample([[]] * 12, mode="drop", max_refills=2)


@pytest.mark.parametrize("mode", ["all", "drop", "refill"])
def test_a_first_draw_whose_rollouts_all_failed_is_followed_by_another(sample, mode):
    batch, metrics, rollouts = sample([[]] * 4 + [SPREAD] * 4, mode=mode)
    assert len(groups_in(batch)) == 4 and rollouts.asked == [4, 4]
    assert metrics["filter/groups_failed"] == 4


def test_a_validation_whose_rollouts_all_failed_ends_with_a_clear_error(sampler):
    import transfer_queue as tq

    from omniq_verl.filters.group_std_verl import NothingToTrainOn

    failed = {"is_prompt": True, "status": "failure", "global_steps": 1}
    tq.kv_batch_put(keys=["a", "b"], tags=[failed] * 2, partition_id="val")
    with pytest.raises(NothingToTrainOn, match=r"every rollout of 2 validation rows failed; failed_rollouts.jsonl"):
        sampler(lambda _: None).sample(1, "val", 2)


def test_refill_draws_for_the_dropped_until_the_batch_is_full(sample):
    batch, metrics, rollouts = sample([SPREAD, FLAT, FLAT, SPREAD, SPREAD, FLAT, SPREAD, SPREAD], mode="refill")
    # Half were kept, so that two places take four draws; the fifth group kept is one too many.
    assert rollouts.asked == [4, 4]
    assert len(groups_in(batch)) == 4
    assert metrics["filter/groups_surplus"] == 1
    assert metrics["filter/bound_reached"] == 0
    assert left_in_queue() == set(batch.keys)


def test_refill_at_its_bound_trains_on_what_it_has(sample, caplog):
    batch, metrics, rollouts = sample([SPREAD, FLAT, FLAT, FLAT] + [FLAT] * 8, mode="refill", max_refills=2)
    assert groups_in(batch) == {"group0"}
    assert len(rollouts.asked) == 3
    assert metrics["filter/bound_reached"] == 1
    assert "max_refills reached: training on 1 of 4 groups" in caplog.text


def test_a_draw_of_failed_groups_alone_is_followed_by_another(sample):
    batch, metrics, _ = sample([SPREAD, SPREAD, SPREAD, FLAT, [], [], SPREAD, SPREAD], mode="refill")
    assert len(groups_in(batch)) == 4
    assert metrics["filter/draws"] == 3
    assert metrics["filter/groups_failed"] == 2
    assert left_in_queue() == set(batch.keys)


def test_other_peoples_rewards_can_be_trained_on_unfiltered(sample):
    batch, metrics, _ = sample([SPREAD] * 4, parts=lambda accuracy: {"acc": accuracy})
    assert len(batch.keys) == 12
    assert not [name for name in metrics if name.startswith("parse/")]


def test_a_metric_the_reward_does_not_have_is_named(sample):
    with pytest.raises(KeyError, match="looks at 'accuracy', but the reward has only"):
        sample([SPREAD] * 4, mode="drop", parts=lambda accuracy: {"acc": accuracy})


@pytest.mark.parametrize("mode", ["all", "drop", "refill"])
@pytest.mark.parametrize("name", ["score", "acc"])
@pytest.mark.parametrize("kind", [float, np.float32, np.float64, lambda value: torch.tensor(float(value))])
def test_a_reward_that_is_no_number_ends_the_training_instead_of_the_weights(sample, mode, name, kind):
    def parts(accuracy: float) -> dict[str, float]:
        return {"accuracy": accuracy, name: kind("nan") if accuracy == 0.9 else kind(accuracy)}

    said = r"an answer to koniq/group0 of koniq is (nan|tensor\(nan\))\. Fix: let the reward function"
    with pytest.raises(ValueError, match=said):
        sample([SPREAD] + [FLAT] * 3, mode=mode, parts=parts)


def test_a_part_that_some_answer_lacks_cannot_be_filtered_by(sample):
    def parts(accuracy: float) -> dict[str, float]:
        return {**our_parts(accuracy), "pred": float("nan") if accuracy == 0 else 3.0}

    with pytest.raises(
        ValueError, match=r"looks at 'pred', which is nan for an answer to koniq/group\d of koniq\. Fix"
    ):
        sample([SPREAD, WRONG] * 2, mode="drop", metric="pred", parts=parts)


def test_a_group_of_one_is_dropped_by_name(sample):
    batch, metrics, _ = sample([SPREAD, [0.7], SPREAD, SPREAD], mode="drop")
    assert len(groups_in(batch)) == 3
    assert metrics["filter/dropped_single"] == 1


def test_rows_come_in_an_order_that_does_not_depend_on_their_arrival(sample):
    forth, _, _ = sample([SPREAD, SPREAD, SPREAD, SPREAD])
    sessions = [key.split("_")[1] for key in forth.keys]
    assert sessions == ["0", "1", "2"] * 4
    order = list(dict.fromkeys(map(group_of, forth.keys)))
    assert order != sorted(order)  # by a hash, as the last ones may be left out


def test_padding_rows_are_copies_that_count_for_nothing(sample):
    import torch
    import transfer_queue as tq

    from omniq_verl.trainer.padding_verl import pad_with_masked_copies

    batch, _, _ = sample([SPREAD] * 3, batch=3)
    padded = pad_with_masked_copies(batch, 4)
    assert pad_with_masked_copies(padded, 4) is padded
    assert len(padded) == 12
    extra = padded.keys[9:]
    # The ranks share them out one by one; their advantages and prompts are those of one group.
    assert len({group_of(key) for key in extra}) == 3 and not {*map(group_of, extra)} & {*map(group_of, batch.keys)}
    assert [tag["is_padding"] for tag in padded.tags[9:]] == [True] * 3
    rows = tq.kv_batch_get(keys=[batch.keys[0], *extra], partition_id="train")
    first, *copies = map(str, rows["uid"])
    assert len({*copies}) == 1 and first not in copies
    lengths = [len(row) for row in rows["responses"]]
    assert lengths == [3] * 4  # the shortest response is copied
    assert [int(row.sum()) for row in rows["response_mask"]] == [3, 0, 0, 0]
    assert [float(row.sum()) for row in rows["rm_scores"]][1:] == [0.0] * 3
    assert all(
        torch.equal(image["pixels"], rows["multi_modal_inputs"][0]["pixels"]) for image in rows["multi_modal_inputs"]
    )


@pytest.mark.parametrize("partition", ["train", "val"])
def test_a_worker_that_died_stops_the_run_instead_of_leaving_it_waiting(sampler, partition):
    import ray
    import transfer_queue as tq

    from omniq_verl.filters.worker_watch_verl import WorkerDied, WorkerWatch

    @ray.remote(num_cpus=0)
    class Worker:
        def busy(self, seconds: float) -> None:
            time.sleep(seconds)

    living, dying = Worker.remote(), Worker.remote()
    watch = WorkerWatch([living, dying], seconds=0.1)
    ray.get([living.busy.remote(0), dying.busy.remote(0)])
    living.busy.remote(2)  # does not answer for a while
    for _ in range(20):
        watch.check()
        time.sleep(0.05)
    group = f"{partition}-waits-for-ever"
    tq.kv_batch_put(
        keys=[group], tags=[{"is_prompt": True, "status": "running", "global_steps": 1}], partition_id=partition
    )
    own = sampler(lambda _: None)
    own.watch = watch
    ray.kill(dying)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            own.sample(1, partition, 1)
        except BaseException as error:
            errors.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(60)
    (error,) = errors
    assert isinstance(error, WorkerDied)
    assert re.search("worker 2 of 2 has died, and its prompts.*Fix: look for", str(error))
    tq.kv_clear(keys=[group], partition_id=partition)
    ray.kill(living)
