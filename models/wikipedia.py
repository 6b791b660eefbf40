"""Prose of 206 English Wikipedia articles, from the excerpt that gensim tests with (CC BY-SA).

Every tenth article is held out for evaluation; the others train and calibrate.
"""

from __future__ import annotations

import bz2
import functools
import html
import re
from xml.etree import ElementTree

from burnish.models import files

HOLD_OUT = 10
_GONE = [
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"<ref[^>/]*/>"),
    re.compile(r"<(ref|math|gallery|table|timeline|div)\b.*?</\1>", re.DOTALL | re.IGNORECASE),
    re.compile(r"<[^<>]*>"),
    re.compile(r"^\s*(==+.*==+|[*#:;|!{}].*|\[\[[a-z-]{2,12}:.*)$", re.MULTILINE),
    re.compile(r"'{2,}"),
]
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}|\{\|[^{}]*\|\}")
_FILE = re.compile(r"\[\[(?:File|Image|Category):[^\[\]]*\]\]", re.IGNORECASE)
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_OUTSIDE = re.compile(r"\[(?:https?|ftp)://\S+ ?([^\]]*)\]")


def articles(*, held_out: bool) -> list[str]:
    """The prose of the held-out articles, or of the others, in the dump's order."""
    return [text for i, text in enumerate(_articles()) if (i % HOLD_OUT == 0) is held_out]


@functools.cache
def _articles() -> tuple[str, ...]:
    path = files.one("gensim", "gensim/test/test_data/enwiki-latest-pages-articles1.xml*")
    tree = ElementTree.fromstring(bz2.decompress(path.read_bytes()))
    texts = (element.text or "" for element in tree.iter() if element.tag.endswith("}text"))
    prose = (_prose(text) for text in texts if not text.lower().startswith("#redirect"))
    return tuple(text for text in prose if len(text) > 500)


def _prose(wikitext: str) -> str:
    text = html.unescape(wikitext)
    for pattern in _GONE[:3]:
        text = pattern.sub("", text)
    for pattern, kept in ((_TEMPLATE, ""), (_LINK, r"\1")):
        before = ""
        while before != text:  # nested templates and links go from the inside out
            before, text = text, pattern.sub(kept, _FILE.sub("", text))
    text = _OUTSIDE.sub(r"\1", text)
    for pattern in _GONE[3:]:
        text = pattern.sub("", text)
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if len(line) > 40)
