"""Prompts and images -> answers, many of them."""
