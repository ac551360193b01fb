"""Training as a job on a Ray cluster of two nodes, from a package installed by copy: `make test-cluster`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from generation_builders import write_rows
from serving_builders import free_port

from omniq_verl.metric_log import read_metrics
from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.model import save_tiny_model

pytestmark = pytest.mark.cluster
REPO = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
STEPS = 2

NODES_OF_ROLLOUTS = """
import json, sys
from ray.util.state import list_actors
actors = list_actors(address=sys.argv[1], limit=1000, detail=True)
print(json.dumps([[actor.class_name, actor.node_id] for actor in actors]))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cluster")
    save_tiny_model(root / "model", list(TECHNICAL.questions), [np.zeros((80, 80, 3), dtype=np.uint8)])
    write_rows(root / "train.parquet", np.linspace(1, 5, 32))
    write_rows(root / "val.parquet", np.linspace(1, 5, 4), split="val")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*install, str(root / "package"), str(REPO)], check=True)
    return root


@pytest.fixture(scope="module")
def environment(root) -> dict[str, str]:
    # The copy comes before whatever checkout is installed here.
    return {
        **os.environ,
        "PYTHONPATH": str(root / "package"),
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "VERL_PLATFORM": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "of-this-test-alone-and-long-enough",
        "RAY_worker_niceness": "0",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


@pytest.fixture(scope="module")
def cluster(root, environment) -> Iterator[str]:
    """The address of the dashboard of two nodes on this host, each with one "GPU"."""
    port, dashboard = free_port(), free_port()
    short = tempfile.mkdtemp(prefix="r")  # the names of Ray's sockets have at most 107 characters
    size = ["--num-gpus=1", "--num-cpus=16", "--disable-usage-stats", "--block"]
    head = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    head += [f"--ray-client-server-port={free_port()}", f"--temp-dir={short}", "--include-dashboard=true"]
    nodes = []
    try:
        for words, name in ((head, "head"), ([f"--address=127.0.0.1:{port}"], "worker")):
            log = open(root / f"{name}.log", "wb")  # noqa: SIM115  of the process that is started
            # Two nodes on one host must not ask for one port.
            command = [str(SCRIPTS / "ray"), "start", *words, *size, f"--dashboard-agent-listen-port={free_port()}"]
            nodes.append(subprocess.Popen(command, env=environment, cwd=root, stdout=log, stderr=log, process_group=0))
            wait_for_nodes(port, len(nodes), environment)
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        for node in reversed(nodes):
            os.killpg(node.pid, 15)
            node.wait(60)
        shutil.rmtree(short, ignore_errors=True)


def wait_for_nodes(port: int, number: int, environment: dict[str, str]) -> None:
    script = f"""
import ray, time
ray.init("127.0.0.1:{port}", log_to_driver=False, logging_level="ERROR")
while sum(node["Alive"] for node in ray.nodes()) < {number}:
    time.sleep(0.5)
"""
    for _ in range(30):
        if (
            subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=120).returncode
            == 0
        ):
            return
    raise AssertionError("the node did not come up")


def test_stage_one_trains_to_its_end_with_rollouts_on_both_nodes(root, environment, cluster):
    run = root / "run"
    words = [f"data.train_files={root}/train.parquet", f"data.val_files={root}/val.parquet"]
    words += [f"actor_rollout_ref.model.path={root}/model", f"trainer.default_local_dir={run}"]
    words += ["trainer.nnodes=2", "data.train_batch_size=8", "actor_rollout_ref.rollout.n=4", "trainer.save_freq=1"]
    words += [f"trainer.total_training_steps={STEPS}", "actor_rollout_ref.rollout.agent.num_workers=2"]
    command = [str(REPO / "examples" / "omniquality_r" / "submit.sh"), cluster, "omniquality_r/cpu_tiny_stage1_job"]
    done = subprocess.run([*command, *words], env=environment, cwd=root, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    metrics = read_metrics(run)
    assert [step for step in metrics if step] == [1, 2]
    assert all("actor/pg_loss" in metrics[step] for step in (1, 2))
    assert (run / f"global_step_{STEPS}" / "actor" / "huggingface" / "model.safetensors").is_file()
    listed = subprocess.run(
        [sys.executable, "-c", NODES_OF_ROLLOUTS, cluster], env=environment, capture_output=True, text=True, check=True
    )
    actors = json.loads(listed.stdout.splitlines()[-1])
    for kind in ("vLLM", "Worker"):
        nodes = {node for name, node in actors if kind in name}
        assert len(nodes) == 2, (kind, actors)
