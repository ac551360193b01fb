"""verl's vLLM rollout with a weight socket per Ray cluster, registered under its own name ``vllm``.

Its server also takes requests together (``omniq_verl.trainer.batched_requests_verl``). Both ends of the socket
have to use the same name: the trainer's rank (``ClusterServerAdapter``) and vLLM's worker, which reads it from the
environment of the server that starts it (``ClusterHttpServer``).
"""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import ray
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica
from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter

from omniq_verl.trainer.as_they_end import as_they_end
from omniq_verl.trainer.weight_socket import cluster_job_id, cluster_socket


class ClusterServerAdapter(ServerAdapter):
    """The sender of the weights, in each rank of the trainer."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        super().__init__(config, *args, **kwargs)
        disaggregation = getattr(self.config, "disaggregation", None)
        # With separate prefill servers verl starts other servers (vllm_pd_replica.py), which keep its own name.
        if not getattr(disaggregation, "enabled", False):
            context = ray.get_runtime_context()
            self.zmq_handle = cluster_socket(self.zmq_handle, context.get_job_id(), context.gcs_address)


class ClusterHttpServer(vLLMHttpServer):
    """The server, whose vLLM workers receive the weights, and which takes requests one by one and together."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        context = ray.get_runtime_context()
        os.environ["VERL_RAY_JOB_ID"] = cluster_job_id(context.get_job_id(), context.gcs_address)

    async def generate_together(self, requests: Sequence[dict[str, Any]]) -> AsyncIterator[list[tuple[int, Any]]]:
        """Answer requests as ``generate`` does.

        Args:
            requests: arguments of ``generate``; settings may be shared between them.

        Yields:
            numbers and answers of those that have ended, or the errors of those that failed.
        """
        each = ({**one, "sampling_params": without_text(one["sampling_params"])} for one in requests)
        async for part in as_they_end(self.generate(**one) for one in each):
            yield part


def without_text(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of sampling parameters, since verl changes them (vllm_async_server.py:603), without text of answers.

    verl's server returns only tokens. Unless told otherwise, vLLM decodes every token twice, for the answer and for its
    log-probabilities. Only stop strings need that text.
    """
    return {**settings} if settings.get("stop") else {"detokenize": False, **settings}


class ClusterReplica(vLLMReplica):
    """Starts such servers."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(ClusterHttpServer)
