"""Products with few rows, as of a language model's decoding: ``y[m, n] = sum_k x[m, k] w[n, k]``.

What they take is the time of reading the weights once. Any device with work groups:

1. Up to ``ROWS`` rows share each weight, which is decoded (4 and 8 bits) in registers.
2. Weights are read 16 bytes at a time where they lie so, by neighbours side by side: along ``k``
   where its steps are neighbours in memory (``"depth"``), else along ``n`` (``"columns"``).
3. ``depth``: ``across`` work items sum a column, ``each`` columns a work item, ``down`` such
   groups a work group. ``columns``: ``across`` items side by side, each with its vector of
   columns, and ``down`` of them share the sum.
4. Their sums meet in local memory, halved at each step, a barrier between: nothing is taken for
   granted of items that run together.
5. What is over at the end of a row is summed one by one. Extents may be open, but the rows'.

``plan`` says which products these are and sizes their groups, ``sums`` has what a work item adds up
and where it meets others', ``kernel`` the launch along either axis. How weights are read is in
:mod:`burnish.targets.gpu.readings`.
"""

from burnish.targets.gpu.matvec.kernel import emit
from burnish.targets.gpu.matvec.plan import ROWS

__all__ = ["ROWS", "emit"]
