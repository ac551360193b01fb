"""Pages of several nodes as one."""

from omniq_verl.serving.metrics import merge_metrics

FIRST = """# HELP ray_omniq_scores_total Answers
# TYPE ray_omniq_scores_total counter
ray_omniq_scores_total{status="ok",node="1"} 3.0
# HELP ray_object_store_memory Not ours
# TYPE ray_object_store_memory gauge
ray_object_store_memory 5.0
# HELP ray_serve_num_http_requests Requests
# TYPE ray_serve_num_http_requests counter
ray_serve_num_http_requests{route="/v1/score"} 7.0
"""


def test_each_metric_stands_once_with_the_figures_of_all_nodes():
    second = FIRST.replace('node="1"} 3.0', 'node="2"} 4.0')
    assert merge_metrics([FIRST, "", second]).splitlines() == [
        "# HELP ray_omniq_scores_total Answers",
        "# TYPE ray_omniq_scores_total counter",
        'ray_omniq_scores_total{status="ok",node="1"} 3.0',
        'ray_omniq_scores_total{status="ok",node="2"} 4.0',
        "# HELP ray_serve_num_http_requests Requests",
        "# TYPE ray_serve_num_http_requests counter",
        'ray_serve_num_http_requests{route="/v1/score"} 7.0',
        'ray_serve_num_http_requests{route="/v1/score"} 7.0',
    ]


def test_no_page_no_figures():
    assert merge_metrics(["", "# HELP x y\n"]) == ""
