"""Passes: each takes an ``IRModule`` and returns a new one."""
