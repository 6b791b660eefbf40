"""Rule for recurrences (LSTM, GRU, plain RNN): one kernel for all steps of a sequence.

Parameters and cells are those of :mod:`burnish.targets.recurrence_form`.

1. A task is a panel of units and a block of rows, all gates of them: what it computes it also
   turns into states, so that a step of an LSTM is one parallel loop. A GRU that resets before
   its product has two, and so has an LSTM that projects its states. Neighbouring tasks share a
   panel, and a thread keeps its panels; with an open batch they share rows.
2. Sums of all gates stay in registers; states of a step are read from one of two buffers and
   written to the other.
3. Steps too small to pay for waking threads run on one.

``product`` shares a product out over tasks, ``tile`` sums the gates of a task, ``cell`` makes
states of them; ``held`` has the workspace, and ``kernel`` the loop over steps.
"""

from burnish.targets.cpu.recurrence.kernel import emit, plain

__all__ = ["emit", "plain"]
