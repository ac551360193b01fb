"""What a server is told before anything is started."""

import json
import os
import socket
import subprocess
import sys

import pytest
from evaluation_builders import RATER
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.serving.cli import accepted_keys
from omniq_verl.serving.deployment import deployment
from omniq_verl.serving.limits import Limits
from omniq_verl.serving.run import gpus_of, lacking_resources
from omniq_verl.serving.settings import ServerSettings, key_digest

MODEL = EngineSpec("x", "serving_builders:AsyncRater", devices=2)


def config_of(settings: ServerSettings):
    return deployment(settings)._bound_deployment._deployment_config


def test_replicas_are_as_many_as_told_or_scale_within_bounds():
    assert config_of(ServerSettings(MODEL, replicas=(3, 3))).num_replicas == 3
    scaled = config_of(ServerSettings(MODEL, replicas=(1, 4), limits=Limits(waiting=80))).autoscaling_config
    assert (scaled.min_replicas, scaled.max_replicas, scaled.target_ongoing_requests) == (1, 4, 20)


def test_requests_reach_a_replica_even_where_it_is_full_so_that_it_answers_429():
    assert config_of(ServerSettings(MODEL, limits=Limits(waiting=80))).max_ongoing_requests > 80


def test_gpus_are_those_of_the_model_where_there_are_any():
    assert gpus_of(ServerSettings(MODEL), {"CPU": 2}) == 0
    assert gpus_of(ServerSettings(MODEL), {"GPU": 8}) == 2
    assert gpus_of(ServerSettings(rali="x"), {"GPU": 8}) == 1


@pytest.mark.parametrize(
    ("replicas", "gpus", "resources", "said"),
    [
        ((1, 1), 1, {"GPU": 1, "CPU": 8}, None),
        ((1, 8), 1, {"GPU": 1, "CPU": 8}, None),  # more replicas come when there is room
        ((3, 3), 0, {"CPU": 3}, None),
        ((2, 2), 1, {"GPU": 1, "CPU": 8}, "--replicas 2 with 1 GPU each need 2 GPUs, but 1 is here. Fix: lower --rep"),
        ((1, 1), 4, {"GPU": 2, "CPU": 8}, "with 4 GPUs each need 4 GPUs, but 2 are here. Fix: lower --devices"),
        ((2, 2), 2, {"GPU": 2, "CPU": 8}, "need 4 GPUs, but 2 are here. Fix: lower --replicas or --devices"),
        ((3, 3), 0, {"CPU": 2}, "--replicas 3 with 1 CPU each need 3 CPUs, but 2 are here. Fix: lower --replicas"),
    ],
)
def test_replicas_for_which_there_is_no_room_are_an_error(replicas, gpus, resources, said):
    found = lacking_resources(ServerSettings(MODEL, replicas=replicas, gpus=gpus), resources)
    assert (said is None) == (found is None) and (said or "") in (found or "")


@pytest.fixture
def without_ray(monkeypatch, tmp_path):
    """An empty directory, and a failure where Ray is started."""

    def started(*_, **__):
        raise AssertionError("Ray was started")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("omniq_verl.serving.cli.prefer_haproxy", lambda: None)  # of this process's environment
    monkeypatch.setattr("ray.init", started)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to serve"),
        (["--rali", "none"], "no RALI model there"),
        (["--model", "pickled"], "pickle"),
        (["--model", "x", "--engine", RATER, "--replicas", "2", "--max-images", "0"], "max-images"),
        (["--model", "x", "--engine", RATER, "--max-pixels", "100000000"], "pixels <= "),
        (["--model", "x", "--engine", RATER, "--host", "example.org"], "'example.org' is no IP address. Fix: use 127"),
        (["--model", "x", "--engine", RATER, "--timeout", "nan"], "seconds finite"),
        (["--model", "x", "--engine", RATER, "--max-tokens", "0"], "max_tokens must be >= 1"),
        (["--model", "x", "--engine", RATER, "--devices", "0"], "devices"),
        (["--model", "x", "--engine", "beauty"], "unknown engine"),
    ],
)
def test_what_cannot_be_served_is_said_before_ray_starts(words, said, without_ray, tmp_path):
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    done = CliRunner().invoke(app, ["serve", *words])
    assert done.exit_code != 0 and said in done.output and not isinstance(done.exception, AssertionError)


@pytest.mark.parametrize("given", ["one,two", " one , two\n", "one\ntwo\n", "one,two,"])
def test_white_space_around_keys_is_no_part_of_them(given):
    assert accepted_keys(given) == {key_digest("one"), key_digest("two")}


@pytest.mark.parametrize("given", ["", " ", ",", "\n"])
def test_a_server_does_not_start_open_because_its_keys_are_empty(given, without_ray, monkeypatch):
    monkeypatch.setenv("OMNIQ_API_KEYS", given)
    done = CliRunner().invoke(app, ["serve", "--model", "x", "--engine", RATER])
    assert done.exit_code == 1 and "OMNIQ_API_KEYS is set, but holds no key. Fix: unset it" in done.output
    assert accepted_keys(None) == frozenset()


def test_localhost_is_this_machine_alone(without_ray, monkeypatch):
    heard = []
    monkeypatch.setattr("omniq_verl.serving.cli._serve_forever", lambda: lambda _, host, *__: heard.append(host))
    for host in ("localhost", "127.0.0.1", "::1"):
        assert CliRunner().invoke(app, ["serve", "--model", "x", "--engine", RATER, "--host", host]).exit_code == 0
    assert heard == ["127.0.0.1", "127.0.0.1", "::1"]


def test_a_taken_port_is_named_before_ray_starts(without_ray):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = CliRunner().invoke(app, ["serve", "--model", "x", "--engine", RATER, "--port", str(port)])
    assert done.exit_code == 1 and f"127.0.0.1:{port}" in done.output and "another --port" in done.output


SCRIPT = """
import json, os
from omniq_verl.serving.haproxy import prefer_haproxy
prefer_haproxy()
print(json.dumps({name: value for name, value in os.environ.items() if name.startswith("RAY_SERVE_")}))
"""


@pytest.mark.parametrize("own", ["0", None])
def test_haproxy_gets_a_folder_and_ports_of_its_own_and_what_the_user_set_stays(own):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_SERVE_")}
    environment |= {"RAY_SERVE_ENABLE_HA_PROXY": own} if own else {}
    run = [
        json.loads(subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True).stdout)
        for _ in range(2)
    ]
    assert [one["RAY_SERVE_ENABLE_HA_PROXY"] for one in run] == [own or "1"] * 2
    for name in ("CONFIG_FILE_LOC", "SOCKET_PATH", "METRICS_SOCKET_PATH", "SERVER_STATE_FILE"):
        assert len({one[f"RAY_SERVE_HAPROXY_{name}"] for one in run}) == 2
