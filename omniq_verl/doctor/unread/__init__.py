"""Find settings without effect: keys that verl's chosen trainer, engine and rollout never read.

``record`` follows the configuration through verl's source code and writes ``recorded.json`` for the installed verl
version; ``check`` compares a run's configuration with it. Checking a run needs only that file.
"""
