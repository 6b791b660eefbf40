"""The zoo: trained networks with real weights, real inputs and a real task to judge them by."""

from __future__ import annotations

from burnish.models.files import cache_dir
from burnish.models.zoo import Metric, ZooModel, load, names

__all__ = ["Metric", "ZooModel", "cache_dir", "load", "names"]
