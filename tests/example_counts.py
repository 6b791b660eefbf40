"""How many examples a property test draws where every one is a network that is compiled."""

from __future__ import annotations

from hypothesis import settings

FULL = settings().max_examples

COMPILED = settings(max_examples=min(100, FULL))
"""A hundred in the full tier: an example takes a tenth of a second or more, and each run of the
tests draws others."""

MANY_COMPILED = settings(max_examples=min(200, FULL))
"""For a test that stands for several families of kernels."""
