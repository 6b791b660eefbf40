"""CUDA: the target, its compile step, its schedule rules."""
