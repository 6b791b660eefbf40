"""Choosing weights by name: shell globs on source names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

WILDCARDS = "*?["


def is_literal(pattern: str) -> bool:
    """Whether the pattern names one weight in full, without wildcards."""
    return not any(mark in pattern for mark in WILDCARDS)


def matches(name: str, pattern: str) -> bool:
    """Whether a glob matches a name; a pattern equal to the name always does."""
    return name == pattern or fnmatchcase(name, pattern)


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the globs matches a name."""
    return any(matches(name, pattern) for pattern in patterns)


def select(
    names: Sequence[str], include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> list[str]:
    """The names that some ``include`` glob matches and no ``exclude`` glob does, in order.

    Raises ``ValueError`` for a pattern other than ``*`` that matches nothing, with the nearest
    names.
    """
    for role, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if pattern != "*" and not any(matches(name, pattern) for name in names):
                raise ValueError(_no_match(role, pattern, names))
    return [name for name in names if matches_any(name, include) and not matches_any(name, exclude)]


def select_eligible(
    names: Sequence[str],
    eligible: Iterable[str],
    include: Sequence[str],
    exclude: Sequence[str],
    *,
    verb: str,
) -> list[str]:
    """The chosen names among the eligible, and those named in full whether eligible or not.

    A wildcard passes over what is not eligible. Raises ``ValueError`` as :func:`select` does,
    and for an ``include`` glob other than ``*`` that matches nothing eligible; ``verb`` says
    there what was to be done.
    """
    fit = set(eligible)
    chosen = select(names, include, exclude)
    for pattern in include:
        hits = [name for name in names if matches(name, pattern)]
        wildcard = pattern != "*" and not is_literal(pattern) and pattern not in hits
        if wildcard and not fit.intersection(hits):
            raise ValueError(
                f"include pattern {pattern!r} matches nothing that a wildcard may {verb}, "
                f"only {_quoted(hits[:5])}; name a weight in full to {verb} it all the same"
            )
    literal = {pattern for pattern in include if pattern in names}
    return [name for name in chosen if name in fit or name in literal]


def _no_match(role: str, pattern: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(pattern, names, n=5, cutoff=0.5)
    if near:
        return f"{role} pattern {pattern!r} matches no weight; near names: {_quoted(near)}"
    if not names:
        return f"{role} pattern {pattern!r} matches no weight; the module has none"
    return (
        f"{role} pattern {pattern!r} matches no weight; the {len(names)} names start with "
        f"{_quoted(names[:5])}"
    )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
