"""The name of the socket over which a trainer's rank hands new weights to its rollout engine.

verl 0.9.1 names it after Ray's job id (vllm_rollout.py:141 and vllm_async_server.py:143). Every Ray cluster counts its
jobs from 1, so two runs that each start a Ray of their own on one machine have the same name. The second run removes
the first one's socket (bucketed_weight_transfer.py:173): the first waits forever, or loads the weights of the second.
"""

import hashlib

_DIGITS = 12  # of the hash; the path of a Unix socket may have 107 characters


def cluster_job_id(job_id: str, gcs_address: str) -> str:
    """A job id that no other Ray cluster of the machine has.

    Args:
        job_id: Ray's, e.g. ``01000000``.
        gcs_address: host and port of the cluster's GCS, which two running clusters cannot share.
    """
    return f"{job_id}-{hashlib.sha256(gcs_address.encode()).hexdigest()[:_DIGITS]}"


def cluster_socket(handle: str, job_id: str, gcs_address: str) -> str:
    """verl's socket address with the job id of ``cluster_job_id``.

    Raises:
        ValueError: verl's address does not have the form that this was written for.
    """
    verls, ours = f"-zmq-{job_id}-replica-", f"-zmq-{cluster_job_id(job_id, gcs_address)}-replica-"
    if handle.count(verls) != 1:
        raise ValueError(
            f"the address of verl's weight socket is {handle!r}, without {verls!r}. Fix: install the verl that"
            " constraints/ pins"
        )
    return handle.replace(verls, ours)
