"""What our training worker makes of the metrics that verl's worker reports."""

from types import SimpleNamespace

import pytest
import torch
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import TrainingWorker

from omniq_verl.trainer.worker_verl import GatedTrainingWorker


@pytest.mark.parametrize(("counted", "share"), [((7_500, 24_000), 0.3125), (None, 1.0)])
def test_the_mfu_of_an_update_counts_a_shared_prompt_once(tmp_path, monkeypatch, counted, share):
    def train_batch(self, data):
        if counted:  # as our engine does; verl's do not
            self.engine.tokens = counted
        return tu.get_tensordict(tensor_dict={}, non_tensor_dict={"metrics": {"mfu": 1.6, "loss": 2.0}})

    monkeypatch.setattr(TrainingWorker, "train_batch", train_batch)
    worker = object.__new__(GatedTrainingWorker)
    worker.engine = SimpleNamespace(get_data_parallel_group=lambda: None, tokens=(5, 5))
    mask = torch.nested.nested_tensor([torch.ones(3), torch.ones(5)], layout=torch.jagged)
    data = tu.get_tensordict({"response_mask": mask})
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/ranks", rank=0, world_size=1)
    try:
        metrics = tu.get(worker.train_batch(data), "metrics")
    finally:
        torch.distributed.destroy_process_group()
    assert metrics["mfu"] == pytest.approx(1.6 * share) and metrics["loss"] == 2.0
