"""Rule for recurrences (LSTM, GRU, plain RNN): a block of threads takes all steps of some rows.

The kernel is the one that :mod:`burnish.targets.recurrence_form` describes: what the inputs give is
a product before it, by the rules for products; what is left of a step is the product of the last
states with the recurrent weights, and the cell.

1. A block keeps the states of its rows in shared memory; rows never meet, so blocks never wait for
   each other. There is one row a block until there are more rows than a large GPU has
   multiprocessors.
2. A step's product: a thread sums four neighbouring units of one gate, over a part of the states
   (``splits``); neighbours read neighbouring weights, sixteen bytes each. What does not fit the
   threads of a block is done in turns (``chunks``) of whole panels of weights.
3. The cell: after a barrier, a thread adds up the parts of all gates of a unit. What it needs of
   the inputs it has read before the product.
4. A GRU that resets before its product has two products a step, as has an LSTM that projects its
   states.
5. Two-byte floats are summed, and states kept, in float32.
6. Of a part, ``_TERMS`` are written out and the loop over them is not unrolled: NVIDIA's compiler
   would read as many weights as it has registers for before the first step, and spill.

What does not fit the shared memory of a device (some 2,000 units with 32 KiB) gives way to the
next rule.

``product`` shares a product out and sums its parts, ``step`` goes over the units of a step, and
``cell`` makes their states by the functions of ``cell_math``; ``held`` has the block's buffers, and
``kernel`` the launch and the loop over steps.
"""

from burnish.targets.gpu.recurrence.kernel import emit

__all__ = ["emit"]
