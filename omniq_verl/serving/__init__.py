"""A server of scores: HTTP routes, how they run on a cluster, and those who call them."""
