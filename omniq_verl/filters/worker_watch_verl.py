"""Stop a run whose agent loop worker has died.

verl passes prompts to agent loop workers, forgets the calls, and polls TransferQueue for the answers
(``trainer/ppo/v1/agent_loop_tq.py:243``, ``trainer/ppo/v1/replay_buffer.py:408``). If Ray kills a worker because
memory runs out, or if its node is lost, its prompts stay ``running`` and verl polls forever.
"""

import time
from collections.abc import Sequence

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError


class WorkerDied(RuntimeError):
    """A worker that should answer prompts has died."""


class WorkerWatch:
    """Pings workers without waiting for their replies, so a busy worker may take its time."""

    def __init__(self, workers: Sequence[ActorHandle], seconds: float = 10.0):
        """
        Args:
            workers: Ray actors.
            seconds: time between two checks.
        """
        self._workers, self._seconds = list(workers), seconds
        self._calls: dict[ray.ObjectRef, int] = {}
        self._next = 0.0

    def check(self) -> None:
        """Check the workers if the last check is long enough ago.

        Raises:
            WorkerDied: a worker has died.
        """
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._seconds
        done, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0) if self._calls else ([], [])
        for call in done:
            number = self._calls.pop(call)
            try:
                ray.get(call)
            except RayActorError as error:
                reason = str(error).splitlines()[0]
                raise WorkerDied(
                    f"agent loop worker {number + 1} of {len(self._workers)} has died, and its prompts will never be"
                    f" answered ({reason}). Fix: look for the reason in Ray's log above. If memory ran out, use fewer"
                    " workers (actor_rollout_ref.rollout.agent.num_workers) or a smaller data.train_batch_size. Then"
                    " start the same command again, which resumes"
                ) from error
        for number in set(range(len(self._workers))) - set(self._calls.values()):
            self._calls[self._workers[number].__ray_ready__.remote()] = number
