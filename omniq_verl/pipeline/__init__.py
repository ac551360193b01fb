"""``omniq reproduce`` and the quickstart: stages, a runner that resumes, the papers' tables."""
