"""The reward model at work: which of several generated images is the best, and what that is worth on GenEval."""
