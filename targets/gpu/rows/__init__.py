"""Rule for kernels that work row by row: softmax, norms, sums and extremes over the last axes.

A row is one index of the leading axes; what is done to it is several stages, as
:mod:`burnish.targets.cpu.rows` finds them.

1. Threads share a row (a :class:`~burnish.targets.gpu.teams.Team`); a block has several short
   rows. A thread takes four neighbours at a time where rows are whole fours, the threads of a row
   side by side, so that a row is read in whole lines.
2. What several stages read of a row is read once and kept in registers, as is what one stage
   hands to another; sums and extremes are found by all threads of the row together, so that means
   and variances take two passes over registers and none over memory.
3. A row too long for that, or of open length, is read again by each stage, and what one stage
   would hand to another is computed again.
4. Two-byte floats are summed in float32.

``flat`` writes the stages over one axis of elements, ``plan`` decides what is kept, ``elements``
reads and keeps what a thread has of a row, ``kernel`` has the launch and what each stage does.
"""

from burnish.targets.gpu.rows.kernel import emit

__all__ = ["emit"]
