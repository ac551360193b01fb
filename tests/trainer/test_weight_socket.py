"""Two runs on one machine, each with its own Ray, do not share the socket of the weights."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from omniq_verl.trainer.weight_socket import cluster_socket

VERLS = "ipc:///tmp/rl-colocate-zmq-01000000-replica-0-rank-1.sock"
JOB, ADDRESS, OTHER = "01000000", "192.0.2.2:6379", "192.0.2.2:41733"


def test_clusters_with_the_same_job_id_have_sockets_of_their_own():
    first, second = (cluster_socket(VERLS, JOB, address) for address in (ADDRESS, OTHER))
    assert first != second
    assert cluster_socket(VERLS, JOB, ADDRESS) == first


def test_replica_and_rank_stay_and_the_path_is_short_enough_for_a_socket():
    path = cluster_socket(VERLS.replace("rank-1", "rank-127"), JOB, ADDRESS).removeprefix("ipc://")
    assert path.endswith("-replica-0-rank-127.sock")
    assert len(path.encode()) <= 107


def test_another_form_of_verls_address_is_an_error_and_not_a_shared_socket():
    with pytest.raises(ValueError, match="weight socket"):
        cluster_socket("ipc:///tmp/rl-colocate-zmq-replica-0-rank-1.sock", JOB, ADDRESS)


SCRIPT = """
import json, os, sys
from verl.workers.rollout.base import get_rollout_class
from verl.workers.rollout.replica import RolloutReplicaRegistry, get_rollout_replica_class
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from omniq_verl.trainer.weight_socket import cluster_job_id
from omniq_verl.trainer.weight_socket_verl import ClusterReplica, ClusterServerAdapter, without_text
from vllm import SamplingParams

asked = {"logprobs": 0, "seed": 3}
quiet, stopped = SamplingParams(**without_text(asked)), SamplingParams(**without_text({**asked, "stop": ["<"]}))
os.environ["VERL_RAY_JOB_ID"] = cluster_job_id(*sys.argv[1:])
worker = vLLMColocateWorkerExtension.__new__(vLLMColocateWorkerExtension)
worker.model_runner, worker.local_rank = None, 1
print(json.dumps({
    "receiver": worker._get_zmq_handle(),
    "sender": get_rollout_class("vllm") is ClusterServerAdapter,
    "server": RolloutReplicaRegistry.get("vllm") is get_rollout_replica_class("vllm") is ClusterReplica,
    "text": [quiet.detokenize, stopped.detokenize, asked],
}))
"""


@pytest.mark.slow  # imports vLLM
def test_vllms_worker_opens_the_socket_that_the_trainer_writes_to():
    """verl finds both ends under its own name, and its receiver's address is the sender's."""
    environment = os.environ | {"VERL_PLATFORM": "cpu", "VERL_REPLICA_RANK": "0"}
    command = [sys.executable, "-c", SCRIPT, JOB, ADDRESS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # vLLM writes out the text of answers only for stop strings, and the caller's settings stay as they were.
    assert found.pop("text") == [False, True, {"logprobs": 0, "seed": 3}]
    assert found == {"receiver": cluster_socket(VERLS, JOB, ADDRESS), "sender": True, "server": True}


def test_verl_still_names_the_socket_after_rays_job_id_alone():
    """Fails once verl has a name per cluster: then ``weight_socket`` and ``weight_socket_verl`` can go."""
    folder = Path(importlib.util.find_spec("verl").origin).parent / "workers/rollout/vllm_rollout"
    sender, server = ((folder / name).read_text() for name in ("vllm_rollout.py", "vllm_async_server.py"))
    assert 'f"ipc:///tmp/rl-colocate-zmq-{job_id}-replica-{self.replica_rank}-rank-{local_rank}.sock"' in sender
    assert "job_id = ray.get_runtime_context().get_job_id()" in sender
    assert 'os.environ["VERL_RAY_JOB_ID"] = ray.get_runtime_context().get_job_id()' in server
