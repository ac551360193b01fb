"""Scores of images, of any kind and for any task, by one call."""
