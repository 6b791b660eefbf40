"""Search for faster kernels than the default schedules give, and keep those that are."""

from burnish.compiler.tune.plan import Progress
from burnish.compiler.tune.report import TuneReport, TuneRow
from burnish.compiler.tune.tasks import task_key
from burnish.compiler.tune.tuner import tune_module

__all__ = ["Progress", "TuneReport", "TuneRow", "task_key", "tune_module"]
