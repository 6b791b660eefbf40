"""Reports for people: tables, charts, one page, strict JSON."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from burnish.compiler.compare import Comparison
from burnish.compiler.measure.timing import summarize
from burnish.compiler.parity import parity
from burnish.compiler.report import (
    figures,
    print_comparison,
    print_tables,
    render_table,
    tables,
    waterfall_table,
    write_html,
    write_json,
)
from burnish.compiler.report.charts import bars
from burnish.compiler.waterfall import Reading, Report, Row

REPORT = Report(
    (
        Row("FoldBatchNorm", "clean-up", 0.21, Reading({"conv2d": 9, "batch_norm": 9}, 18_600_000),
            Reading({"conv2d": 9}, 18_500_000)),
        Row("PruneWeights", "compress", 0.4, Reading({"conv2d": 9}, 18_500_000, 8.0),
            Reading({"conv2d": 9}, 18_500_000, 8.1, {"rel": 0.012}, 0.95), "size only",
            "50 % zeros"),
        Row("QuantizeWeights", "compress", 1.9,
            Reading({"conv2d": 9}, 18_500_000, 8.1, accuracy=0.95),
            Reading({"conv2d": 9}, 4_800_000, 9.9, {"rel": 0.034}, 0.94), "undone",
            "slower by 22 % [limit 0 %]"),
    )
)  # fmt: skip


def entry(model="minilm", variant="int8", base=52.0, ours=14.0, accuracy=(0.8123, 0.8119), **more):
    timings = {
        "baseline": summarize([[base * (1 + 0.01 * k)] for k in range(-5, 10)]),
        "compiled": summarize(
            [[ours * (1 + 0.02 * k)] for k in range(-5, 10)], note=more.pop("note", "")
        ),
    }
    result = Comparison(
        baseline="eager", timings=timings, parity=parity([1.0, 2.001], [1.0, 2.0]), inputs=1,
        params_bytes=23_100_000, baseline_params_bytes=90_800_000, artifact_bytes=23_900_000,
        accuracy=accuracy, compile_s=11.3, tune_s=42.0, passes=REPORT.to_dict()["rows"],
        machine={"cpu": "Some CPU", "cores": 2, "threads": 2, "memory": 24e9, "isa": ["avx2"],
                 "versions": {"torch": "2.13"}}, **more,
    )  # fmt: skip
    return result.labelled(model, variant)


def zoo():
    variants = {"fp32": 22.0, "pruned": 22.1, "int8": 14.0, "tuned": 13.2}
    return [
        entry(model, variant, 52.0 * scale, ours * scale)
        for model, scale in (("minilm", 1.0), ("efficientnet-lite0", 0.5))
        for variant, ours in variants.items()
    ]


def text_of(renderable):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def test_models_by_variants():
    text = text_of(render_table(zoo()))
    assert text.count("eager PyTorch") == 2
    assert text.count("efficientnet-lite0") == 1
    for expected in ("tuned", "2.32x", "0.8119", "23.1 MB", "90.8 MB"):
        assert expected in text


def test_waterfall():
    text = text_of(waterfall_table(REPORT))
    for expected in ("FoldBatchNorm", "18 → 9", "18.5 MB → 4.80 MB", "undone", "slower by 22 %"):
        assert expected in text
    assert text.count("compress") == 1
    assert text == text_of(waterfall_table(REPORT.to_dict()["rows"]))


def test_one_comparison_to_the_terminal(capsys):
    print_comparison(entry(ours=52.0, note="timed [as exported]"))
    text = capsys.readouterr().out
    for expected in (
        "latency p50, ms", "~0.981x", "cannot tell", "? marks noisy timings",
        "timed [as exported]", "PruneWeights",
        "[limit 0 %]", "Some CPU",
    ):  # fmt: skip
        assert expected in text


def test_two_tables_where_one_is_too_wide():
    assert Console(width=200).measure(render_table(zoo())).maximum <= tables.WIDE
    for columns in (tables.SPEED, tables.SIZE):
        assert Console(width=200).measure(render_table(zoo(), columns)).maximum <= 100


def test_several_to_the_terminal_keep_every_figure(capsys):
    print_tables(zoo())
    text = capsys.readouterr().out
    assert "…" not in text
    assert "pays after" in text


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.outside, self.ids, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "use", "path", "br"}:
            self.open.append(tag)
        for key, value in attrs:
            if key in {"src", "href", "xlink:href"} and not (value or "").startswith("#"):
                self.outside.append(value)
            if key == "id":
                self.ids.append(value)

    def handle_endtag(self, tag):
        if tag not in {"meta", "use", "path", "br"}:
            assert self.open.pop() == tag


def test_page_is_self_contained(tmp_path):
    write_html(tmp_path / "report.html", [*zoo(), entry("other", "one", accuracy=None)])
    text = (tmp_path / "report.html").read_text()
    page = Links()
    page.feed(text)
    assert page.outside == []
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    assert "@import" not in text
    assert "url(http" not in text
    assert text.count("<svg") == 7
    assert "Passes of int8" in text


def test_page_escapes_what_it_is_given(tmp_path):
    write_html(tmp_path / "r.html", [entry("<script>x</script>", "a & b", note="<b>")])
    text = (tmp_path / "r.html").read_text()
    assert "<script>" not in text
    assert "<b>" not in text
    assert "a &amp; b" in text


def test_pages_are_reproducible(tmp_path):
    for name in ("a.html", "b.html"):
        write_html(tmp_path / name, zoo())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_chart_takes_the_pages_colours():
    svg = bars("Latency", ["eager", "int8"], [2.0, 1.0], tails=[2.2, 1.3])
    assert svg.startswith("<svg")
    assert "var(--accent)" in svg
    assert "var(--baseline)" in svg
    assert not re.search(r"#0101\d\d", svg)


def test_json_is_strict(tmp_path):
    write_json(tmp_path / "r.json", {"rel": math.inf, "cosine": math.nan, "n": [1, 2.5, None]})
    data = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert data == {"rel": "inf", "cosine": "nan", "n": [1, 2.5, None]}
    assert float(data["rel"]) == math.inf


@given(st.floats(1e-5, 1e9))
def test_three_digits_say_the_value(value):
    assert float(figures.digits(value).replace(",", "")) == pytest.approx(
        value, rel=0.006, abs=1e-6
    )


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0, "0 s"), (0.0021, "2.10 ms"), (0.5, "0.500 s")]
)
def test_seconds(value, text):
    assert figures.seconds(value) == text


@pytest.mark.parametrize(
    ("bytes_", "text"), [(0, "0 B"), (999, "999 B"), (1_500, "1.50 kB"), (2.34e9, "2.34 GB")]
)
def test_sizes(bytes_, text):
    assert figures.size(bytes_) == text
