"""The small subclasses that plug into verl's trainer, workers and agent loops."""
