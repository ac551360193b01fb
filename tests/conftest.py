"""Settings every test runs under."""

import os

# Two test processes with a thread per core each wait for one another far longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# No test may read verdicts on data files that another run has saved.
os.environ.setdefault("OMNIQ_DOCTOR_CACHE", "off")
