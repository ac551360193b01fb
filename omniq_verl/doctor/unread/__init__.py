"""Settings that do nothing: keys that the chosen trainer, engine and rollout of the installed verl never read.

``record`` follows the configuration through verl's source code and writes ``recorded.json``, a file for each verl
version; ``check`` compares a run's configuration with it. Only the recording is needed to check a run.
"""
