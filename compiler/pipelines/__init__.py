"""Pipelines: a model cut into stages, each on a device, through which micro-batches go."""
