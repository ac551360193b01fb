"""Training, measuring and using image-quality reward models that reason, on top of verl."""

__version__ = "0.1.0"
