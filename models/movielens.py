"""MovieLens-100k (Harper and Konstan 2015) as tensors, split into three by a fixed seed."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from burnish.models import files

PEOPLE, FILMS = 943, 1682
_WORDS = """
administrator artist doctor educator engineer entertainment executive healthcare homemaker lawyer
librarian marketing none other programmer retired salesman scientist student technician writer
"""
_KINDS = """
Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror
Musical Mystery Romance Sci-Fi Thriller War Western
"""
OCCUPATIONS, GENRES = _WORDS.split(), _KINDS.split()
# Sizes of the columns of ``sparse``: person, film, occupation, sex as recorded.
TABLES = (PEOPLE, FILMS, len(OCCUPATIONS), 2)
LIKED = 4  # stars


@dataclass(frozen=True, eq=False)
class Ratings:
    """``dense [N, 20]``: age / 100, (year - 1900) / 100, genres; ``sparse [N, 4]``: see TABLES."""

    dense: Tensor
    sparse: Tensor
    liked: Tensor

    def part(self, chosen: Tensor) -> Ratings:
        return Ratings(self.dense[chosen], self.sparse[chosen], self.liked[chosen])


class Split(NamedTuple):
    train: Ratings
    validation: Ratings
    test: Ratings


@functools.cache
def ratings() -> Split:
    """80,000, 10,000 and 10,000 ratings, shuffled."""
    people = {row[0]: row for row in _table("user")}
    films = {row[0]: row for row in _table("item")}
    dense, sparse, liked = [], [], []
    for person, film, stars, _ in _table("inter"):
        _, age, sex, occupation, _ = people[person]
        _, _, year, genres = films[film]
        known = (float(year) - 1900.0) / 100.0 if year.isdigit() else 0.9
        of = genres.split()
        dense.append([float(age) / 100.0, known, *(float(genre in of) for genre in GENRES)])
        sparse.append(
            [int(person) - 1, int(film) - 1, OCCUPATIONS.index(occupation), int(sex == "F")]
        )
        liked.append(float(float(stars) >= LIKED))
    whole = Ratings(torch.tensor(dense), torch.tensor(sparse), torch.tensor(liked))
    order = torch.randperm(len(liked), generator=torch.Generator().manual_seed(0))
    return Split(*(whole.part(chosen) for chosen in order.tensor_split([80000, 90000])))


def _table(name: str) -> Iterator[list[str]]:
    path = files.one("recbole", f"recbole/dataset_example/ml-100k/ml-100k.{name}")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows)
        yield from rows
