"""The small pieces that read data and score answers."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from burnish.models import ctranslate2, magika, ocr, smollm2, speech, wikipedia
from burnish.models.dlrm import area_under_curve
from burnish.models.drawn import Box
from burnish.models.layout import overlap
from burnish.models.llama import Llama, LlamaShape
from burnish.models.whisper_net import log_mel
from burnish.models.zoo import arrays, pick

WORDS = st.text("abc", max_size=8)
BOXES = st.tuples(*[st.integers(0, 9)] * 2, *[st.integers(1, 9)] * 2).map(
    lambda made: Box("text", made[0], made[1], made[0] + made[2], made[1] + made[3])
)


@given(WORDS, WORDS, WORDS)
def test_edit_distance_is_a_distance(a: str, b: str, c: str) -> None:
    assert (ocr.edit_distance(a, b) == 0) is (a == b)
    assert ocr.edit_distance(a, b) == ocr.edit_distance(b, a)
    assert ocr.edit_distance(a, c) <= ocr.edit_distance(a, b) + ocr.edit_distance(b, c)
    assert abs(len(a) - len(b)) <= ocr.edit_distance(a, b) <= max(len(a), len(b))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_area_under_curve_counts_pairs(made: list[tuple[int, bool]]) -> None:
    good = [score for score, liked in made if liked]
    bad = [score for score, liked in made if not liked]
    if not good or not bad:
        return
    pairs = [(g > b) + 0.5 * (g == b) for g in good for b in bad]
    found = area_under_curve(np.array([s for s, _ in made]), np.array([float(y) for _, y in made]))
    assert found == pytest.approx(np.mean(pairs))


@given(BOXES, BOXES)
def test_overlap_is_symmetric_and_a_share(one: Box, other: Box) -> None:
    assert overlap(one, other) == overlap(other, one)
    assert 0.0 <= overlap(one, other) <= 1.0
    assert overlap(one, one) == 1.0


@given(st.integers(1, 9), st.integers(1, 30), st.none() | st.integers(0, 5))
def test_pick_goes_round(size: int, n: int, seed: int | None) -> None:
    chosen = pick(range(size), n, seed)
    assert len(chosen) == n
    assert set(chosen[:size]) <= set(range(size))
    assert len(set(chosen)) == min(n, size)
    assert all(chosen[i] == chosen[i - size] for i in range(size, n))


@given(st.integers(1, 4))
def test_rotary_rows_go_back_to_halves(heads: int) -> None:
    """What llama.cpp's converter does to the rows, written its way, and undone."""
    size = smollm2.SHAPE.head
    rows = np.arange(heads * size * 2, dtype=np.float32).reshape(heads * size, 2)
    split = rows.reshape(heads, 2, size // 2, 2)
    interleaved = split.swapaxes(1, 2).reshape(heads * size, 2)
    assert np.array_equal(smollm2._halves(interleaved), rows)


@given(st.integers(1, 11), st.sampled_from([1, 2, 4]))
def test_a_llama_does_not_look_ahead(cut: int, kv_heads: int) -> None:
    shape = LlamaShape(17, 16, 2, 4, kv_heads, 24, context=12)
    torch.manual_seed(0)
    network = Llama(shape).eval()
    tokens = torch.randint(17, (1, 12))
    with torch.inference_mode():
        whole, start = network(tokens), network(tokens[:, :cut])
    torch.testing.assert_close(whole[:, :cut], start, rtol=1e-4, atol=1e-5)


def test_outputs_of_any_nesting_become_arrays() -> None:
    outputs = {"a": torch.ones(2), "b": [np.zeros(3), (torch.ones(1),)]}
    assert [each.shape for each in arrays(outputs)] == [(2,), (3,), (1,)]


def test_wikitext_becomes_prose() -> None:
    source = (
        "{{Box|a={{b}}}}\n== Head ==\n'''Rock''' is [[stone|a stone]] that geologists study"
        "<ref>x</ref> &amp; [http://x.org admire], {{cite}} at length.\n[[File:a.png|[[b]] c]]\n"
        "* item\n{| table\n|-\n|}\nshort"
    )
    assert wikipedia._prose(source) == (
        "Rock is a stone that geologists study & admire, at length."
    )


def test_bytes_at_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"  ab" + b"x" * 5000 + b"yz \n")
    values = magika.features(path)
    assert values.shape == (1, 2048)
    assert list(values[0, :3]) == list(b"abx")
    assert list(values[0, -3:]) == list(b"xyz")
    path.write_bytes(b"abc")
    values = magika.features(path)
    assert list(values[0, :4]) == [*b"abc", 256]
    assert list(values[0, -4:]) == [256, *b"abc"]


def test_utterances_are_split_in_two() -> None:
    evaluates = {each.name for each in speech.utterances(calibrates=False)}
    calibrates = {each.name for each in speech.utterances(calibrates=True)}
    assert (len(evaluates), calibrates) == (7, set(speech.CALIBRATES))
    assert not evaluates & calibrates


def test_log_mel_places_a_tone() -> None:
    """1 kHz is Slaney's mel 15; the 80 triangles are 45.25 / 81 mels apart."""
    tone = torch.sin(2 * torch.pi * 1000.0 * torch.arange(16000) / 16000)
    mel = log_mel(tone)
    assert mel.shape == (1, 80, 3000)
    assert mel[0, :, 50].argmax().item() in (25, 26)
    assert mel.max() - mel.min() <= 2.0 + 1e-6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (struct.pack("<I", 5), "has CTranslate2 version 5; only 6 is read"),
        (struct.pack("<IH", 6, 9) + b"short", "ends early: 9 bytes expected, 5 found"),
        (b"", "ends early: 4 bytes expected, 0 found"),
    ],
)
def test_a_bad_ctranslate2_file_says_so(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        ctranslate2.read(path)
