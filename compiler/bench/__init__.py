"""Models beside every peer, and each time beside the machine's limit."""

from burnish.compiler.bench.options import Case, Options
from burnish.compiler.bench.peers import PEERS
from burnish.compiler.bench.result import BenchResult, Row
from burnish.compiler.bench.run import bench

__all__ = ["PEERS", "BenchResult", "Case", "Options", "Row", "bench"]
