"""Relay modules of TVM up to 0.19, read without Relay: JSON or text, and a parameter file.

Reading (bytes -> :class:`~.graph.Graph`) touches neither TVM nor the disk; conversion to Relax is
:mod:`.importer`.
"""

from __future__ import annotations
