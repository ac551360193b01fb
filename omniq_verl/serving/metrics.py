"""Prometheus metrics, collected through Ray, which sums them over all replicas."""

import re
from collections.abc import Iterable
from urllib.request import urlopen

from omniq_verl.scoring.scorer import Score

_OURS = re.compile(r"(# (HELP|TYPE) )?ray_(omniq|serve)_")
_TIMEOUT = 5  # seconds


class Metrics:
    """Counter ``omniq_scores_total`` of one replica, by task and status. Ray Serve counts requests and latencies."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter

        self._scores = Counter("omniq_scores_total", "Answers by task and status", tag_keys=("task", "status"))

    def count(self, scores: Iterable[Score]) -> None:
        """Count these answers."""
        for score in scores:
            self._scores.inc(1, {"task": score.task, "status": score.status})

    def page(self) -> str:
        """Return the metrics page of all replicas together."""
        return cluster_metrics()


def cluster_metrics() -> str:
    """Return this package's and Ray Serve's metrics from every node of the cluster, in Prometheus's text format."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"] and node.get("MetricsExportPort")]
    return merge_metrics(_read(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}") for node in nodes)


def merge_metrics(pages: Iterable[str]) -> str:
    """Merge several pages into one: each metric's header appears once, followed by the samples of all pages."""
    found: dict[str, list[str]] = {}
    heads: dict[str, list[str]] = {}
    for page in pages:
        name = ""
        for line in page.splitlines():
            if line.startswith("# "):
                name = line.split(" ", 3)[2]
                heads.setdefault(name, [])
                if line not in heads[name]:
                    heads[name].append(line)
            elif line:
                found.setdefault(name, []).append(line)
    return "".join(
        f"{line}\n" for name, lines in found.items() if _OURS.match(name) for line in (*heads.get(name, ()), *lines)
    )


def _read(address: str) -> str:
    try:
        with urlopen(f"{address}/metrics", timeout=_TIMEOUT) as page:
            return page.read().decode(errors="replace")
    except OSError:  # the node's metrics agent starts later than the node
        return ""
