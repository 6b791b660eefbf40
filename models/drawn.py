"""Lines and pages drawn from Wikipedia prose, so that what they say and where is known."""

from __future__ import annotations

import functools
import importlib.util
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from burnish.models import wikipedia
from burnish.models.zoo import optional

PAGE = (1216, 1600)  # width and height in pixels
MARGIN = 96
LETTERS, NOISE = 12, 30.0


@dataclass(frozen=True)
class Box:
    """``label`` is ``"text"``, ``"title"`` or ``"table"``; corners in pixels of the page."""

    label: str
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, eq=False)
class Page:
    """``pixels [1600, 1216, 3] uint8`` and the boxes that were drawn on it."""

    pixels: np.ndarray
    boxes: tuple[Box, ...]


def lines(count: int, *, held_out: bool) -> list[str]:
    """Up to ``count`` pieces of prose of 20 to 38 plain characters, cut between words."""
    found: list[str] = []
    for article in wikipedia.articles(held_out=held_out):
        words = [word for word in article[:4000].split() if re.fullmatch(r"[A-Za-z0-9,.'-]+", word)]
        line = ""
        for word in words:
            if len(line) + len(word) > 37:
                if len(line) >= 20:
                    found.append(line)
                line = word
            else:
                line = f"{line} {word}".strip()
            if len(found) == count:
                return found
    return found


def line_pixels(text: str) -> np.ndarray:
    """One line, black on white with a small border and noise: ``[height, width, 3] uint8``.

    Letters of 12 pixels and noise of deviation 30 make it hard enough for errors to occur.
    """
    pictures, drawing = optional("PIL.Image"), optional("PIL.ImageDraw")
    face = font(LETTERS)
    left, top, right, bottom = face.getbbox(text)
    picture = pictures.new("RGB", (int(right - left) + 16, int(bottom - top) + 12), "white")
    drawing.Draw(picture).text((8 - left, 6 - top), text, font=face, fill="black")
    grain = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(picture.size[::-1])
    return (np.asarray(picture) + NOISE * grain[..., None]).clip(0, 255).astype(np.uint8)


@functools.cache
def page(number: int, *, held_out: bool) -> Page:
    """A page of a title, paragraphs and a table, whose sizes follow from ``number``."""
    pictures, drawing = optional("PIL.Image"), optional("PIL.ImageDraw")
    prose = " ".join(wikipedia.articles(held_out=held_out)).split()
    chance = np.random.default_rng(number if held_out else 10_000 + number)
    picture = pictures.new("RGB", PAGE, "white")
    draw = drawing.Draw(picture)
    words = iter(prose[int(chance.integers(len(prose) // 2)) :])
    parts = ["title", "text", "text", "table", "text"]
    top, boxes = float(MARGIN), []
    for part in parts:
        if part == "table":
            box = _table(draw, top, chance, words)
        elif part == "title":
            box = _paragraph(draw, top, "title", 44, 1, words)
        else:
            box = _paragraph(draw, top, "text", 22, int(chance.integers(4, 9)), words)
        boxes.append(box)
        top = box.bottom + float(chance.integers(40, 70))
    return Page(np.asarray(picture), tuple(boxes))


@functools.cache
def font(size: int) -> Any:
    """DejaVu Sans, as matplotlib ships it, so that every machine draws the same."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("matplotlib is not installed; its font draws the zoo's pages")
    folder = Path(spec.origin).parent / "mpl-data/fonts/ttf"
    return optional("PIL.ImageFont").truetype(str(folder / "DejaVuSans.ttf"), size)


def _paragraph(draw: Any, top: float, label: str, size: int, rows: int, words: Any) -> Box:
    face, width = font(size), PAGE[0] - 2 * MARGIN
    if label == "title":
        width //= 2
    text, filled, right = "", 0, 0.0
    begin = top
    for word in words:
        longer = f"{text} {word}".strip()
        if draw.textlength(longer, font=face) <= width:
            text = longer
            continue
        draw.text((MARGIN, top), text, font=face, fill="black")
        right = max(right, draw.textlength(text, font=face))
        top += size * 1.4
        filled, text = filled + 1, word
        if filled == rows:
            break
    return Box(label, MARGIN, begin, MARGIN + right, top - size * 0.2)


def _table(draw: Any, top: float, chance: np.random.Generator, words: Any) -> Box:
    rows, columns, height = int(chance.integers(4, 8)), int(chance.integers(3, 6)), 44
    width = (PAGE[0] - 2 * MARGIN) // columns
    right, bottom = MARGIN + width * columns, top + height * rows
    for row in range(rows + 1):
        draw.line((MARGIN, top + row * height, right, top + row * height), fill="black", width=2)
    for column in range(columns + 1):
        across = MARGIN + column * width
        draw.line((across, top, across, bottom), fill="black", width=2)
    for row in range(rows):
        for column in range(columns):
            said = next(words)[:10] if row == 0 or column == 0 else f"{chance.uniform(0, 999):.1f}"
            place = (MARGIN + column * width + 12, top + row * height + 9)
            draw.text(place, said, font=font(20), fill="black")
    return Box("table", MARGIN, top, right, bottom)
