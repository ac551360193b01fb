"""Scripts that make the data of the tiny tables, and what stands in for large models there."""
