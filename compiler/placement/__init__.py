"""Deciding where each operator runs: the problem, what a placement costs, and algorithms."""
