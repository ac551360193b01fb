"""Finished rollouts in a TransferQueue, put there as agent-loop workers do, and fetched as ranks do."""

import json
from collections.abc import Sequence
from typing import Any

FORMAT = 0.5
"""What the per-sample reward gives every answer."""


def put(
    number: int,
    source: str,
    answers: Sequence[float | None],
    label: float,
    order: Sequence[int],
    partition: str = "train",
) -> None:
    """The finished rollouts of one prompt.

    Args:
        number: of the prompt, which names its group and its row.
        source: data source.
        answers: score of each rollout; None: no score.
        label: of the image.
        order: in which the rollouts end; those that are not named fail.
        partition: ``train`` or ``val``.
    """
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
    tq.kv_batch_put(keys=keys, fields=list_of_dict_to_tensordict(rows), tags=tags, partition_id=partition)
    prompt = {"is_prompt": True, "status": "finished", "global_steps": 1}
    tq.kv_batch_put(keys=[f"group{number}"], tags=[prompt], partition_id=partition)


class Worker:
    """One of several agent-loop workers: a process of its own with its own client of the queue."""

    def __init__(self) -> None:
        import transfer_queue as tq

        tq.init()

    def put(self, prompts: Sequence[tuple[Any, ...]]) -> None:
        """Finish the rollouts of some prompts, one after the other."""
        for prompt in prompts:
            put(*prompt)


class Rank:
    """One of several ranks of the actor: it fetches its share of a batch as verl's workers do."""

    def rewards(self, share: Any) -> dict[str, float]:
        """The sum of the rewards of each rollout in a share, by group and session."""
        from verl.utils.transferqueue_utils import tqbridge

        def read(batch: Any) -> dict[str, float]:
            uids, sessions = ([getattr(one, "data", one) for one in batch[name]] for name in ("uid", "session_id"))
            rewards = [float(scores.sum()) for scores in batch["rm_scores"].unbind()]
            names = [f"{uid}_{int(session)}" for uid, session in zip(uids, sessions, strict=True)]
            return dict(zip(names, rewards, strict=True))

        return tqbridge()(read)(share)
