"""Reading generated assembly: its innermost loops, and what is in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LABEL = re.compile(r"^([.\w$]+):")
_BLOCK = re.compile(r"^\.LBB\d+_\d+$")
_FUNCTION = re.compile(r"^(\.L__tvm_parallel_lambda[.\d]*|[A-Za-z_]\w*)$")
_BRANCH = re.compile(r"^(?:b|b\.\w+|cbn?z|tbn?z|j\w+)\s+(?:.*,\s*)?(\.LBB\w+)$")
_CALL = re.compile(r"^(?:bl|callq?)\s+([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Loop:
    """The instructions of an innermost loop, branches into its middle included."""

    lines: tuple[str, ...]

    def count(self, pattern: str) -> int:
        """Instructions that match from the start of their name."""
        return sum(bool(re.match(pattern, line)) for line in self.lines)


@dataclass(frozen=True)
class Code:
    """Assembly text of LLVM, for ARM or for x86 in AT&T's syntax."""

    loops: tuple[Loop, ...]
    calls: frozenset[str]
    """Functions called by name that the code does not define itself."""

    def hottest(self, pattern: str) -> Loop:
        """The innermost loop with the most instructions that match."""
        return max(self.loops, key=lambda loop: loop.count(pattern))

    def densest(self, pattern: str, least: int) -> Loop:
        """Of the innermost loops with ``least`` matches or more, the one that is most of them."""
        loops = [loop for loop in self.loops if loop.count(pattern) >= least]
        assert loops, f"no loop has {least} of {pattern}"
        return max(loops, key=lambda loop: loop.count(pattern) / len(loop.lines))


def read_assembly(text: str) -> Code:
    """A loop reaches from a label to a branch back to it; the innermost have none inside."""
    loops: list[Loop] = []
    calls: set[str] = set()
    defined: set[str] = set()
    lines: list[str] = []
    places: dict[str, int] = {}
    back: list[tuple[int, int]] = []
    for raw in text.splitlines():
        label = _LABEL.match(raw)
        if label and _BLOCK.match(label[1]):
            places[label[1]] = len(lines)
        elif label and _FUNCTION.match(label[1]):
            loops.extend(_innermost(lines, back))
            defined.add(label[1])
            lines, places, back = [], {}, []
        line = re.sub(r"\s+", " ", re.split(r"//|\s#\s", raw)[0]).strip()
        if label or not line or line.startswith("."):
            continue
        lines.append(line)
        branch, call = _BRANCH.match(line), _CALL.match(line)
        if branch and branch[1] in places:
            back.append((places[branch[1]], len(lines)))
        if call:
            calls.add(call[1])
    loops.extend(_innermost(lines, back))
    return Code(tuple(loops), frozenset(calls - defined))


def _innermost(lines: Sequence[str], back: Sequence[tuple[int, int]]) -> list[Loop]:
    spans = set(back)
    return [
        Loop(tuple(lines[first:end]))
        for first, end in sorted(spans)
        if not any(first <= a and b <= end and (a, b) != (first, end) for a, b in spans)
    ]
