"""Attention on tensor cores, in one kernel: no score leaves the registers.

After FlashAttention-2 (Dao, arXiv:2307.08691), of two-byte floats with sums of float32:

1. A block of threads has one head of keys and ``16 * down`` of its rows a warp (queries; those of
   several heads, where they share keys). It goes over the keys a tile at a time, with a running
   maximum and sum of each row; what was summed is rescaled when the maximum grows.
2. A row of sums lies in four neighbouring threads, in the places where the next product wants its
   left operand: powers of scores are rounded where they are, and multiply the values.
3. Few rows (decoding): several warps have the same rows and share out the keys of a tile; what
   each has found is joined at the end, in shared memory.
4. From sm_80 on, keys of the next tile and values of this one are copied while others are worked
   on. A row of shared memory is 16 bytes longer than its content, so that the eight rows that
   ``ldmatrix`` reads at once lie in different banks.
5. Tiles of keys that a causal mask hides from all rows are not read; masks are looked at only in
   tiles that have them.

Ours differs in reading shared heads as rows of one head, and in part 3.

``tile`` chooses sizes, ``kernel`` has the launch and the loop over tiles of keys; what a tile takes
is in ``copies``, ``products`` and ``online_softmax``, the end in ``epilogue``, and what lies in
which registers and rows of shared memory in ``held``.
"""

from burnish.targets.cuda.warp_attention.kernel import emit
from burnish.targets.cuda.warp_attention.tile import Tile, choose_tile

__all__ = ["Tile", "choose_tile", "emit"]
