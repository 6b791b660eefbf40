"""Inputs and output files of the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.cli.files import check_writable, whole_file
from burnish.cli.inputs import (
    DTYPES,
    InputSpec,
    flat,
    make,
    overridden,
    parse_dynamic,
    parse_specs,
    read_npz,
)
from burnish.compiler.errors import BurnishError, ConfigError, InvalidInputError

names = st.text("abc.:/_0", min_size=1, max_size=8)


@given(
    names,
    st.lists(st.integers(0, 9), max_size=4),
    st.sampled_from(DTYPES),
    st.none() | st.tuples(st.integers(0, 5), st.integers(5, 100)),
    st.sampled_from("x,"),
)
def test_input_spec_reads_what_it_says(
    name: str, shape: list[int], dtype: str, span: tuple[int, int] | None, mark: str
) -> None:
    text = f"{name}={mark.join(map(str, shape)) or 'scalar'}:{dtype}"
    text += f":{span[0]}..{span[1]}" if span else ""
    spec = parse_specs([text])[name]
    assert (spec.name, spec.shape, spec.dtype) == (name, tuple(shape), dtype)
    (value,) = make([spec], seed=0)
    assert value.shape == tuple(shape)
    assert value.dtype == dtype
    if dtype.startswith(("int", "uint")) and value.size:
        low, high = span or (0, 1)
        assert low <= value.min() <= value.max() <= high


def test_random_inputs_follow_the_seed() -> None:
    specs = [InputSpec("x", (4, 4), "float32")]
    assert (make(specs, 1)[0] == make(specs, 1)[0]).all()
    assert (make(specs, 1)[0] != make(specs, 2)[0]).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "--input 'x' is not NAME=SHAPE:DTYPE"),
        ("x=1x:float32", "is not NAME=SHAPE"),
        ("x=1x2", "is not NAME=SHAPE"),
        ("x=1:float33", r"dtype 'float33' \(near: float32"),
        ("x=1:int64:5..2", "5 is above 2"),
    ],
)
def test_bad_input_spec(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_specs([text])


def test_override_of_an_unknown_input_lists_near_names() -> None:
    specs = [InputSpec("tokens", (1,), "int64")]
    assert overridden(specs, parse_specs(["tokens=1x4:int64"]))[0].shape == (1, 4)
    with pytest.raises(ConfigError, match=r"'token', no input of the model \(near: tokens\)"):
        overridden(specs, parse_specs(["token=1x4:int64"]))


def test_dynamic_axes() -> None:
    assert parse_dynamic(None) is None
    assert parse_dynamic(["ids:0=batch,1=seq", "a:b:2=n"]) == {
        "ids": {0: "batch", 1: "seq"},
        "a:b": {2: "n"},
    }
    for text in ("ids", "ids:0", "ids:a=b", "ids:0=1", ":0=b"):
        with pytest.raises(ConfigError, match="is not NAME:AXIS=SYMBOL"):
            parse_dynamic([text])


def test_npz_by_name_and_by_place(tmp_path: Path) -> None:
    a, b = np.arange(3), np.ones((2, 2), "float32")
    np.savez(tmp_path / "named.npz", b=b, a=a)
    np.savez(tmp_path / "placed.npz", a, b)
    for file in ("named.npz", "placed.npz"):
        got = read_npz(tmp_path / file, ["a", "b"])
        assert (got[0] == a).all()
        assert (got[1] == b).all()


def test_bad_npz(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no input file .*none\.npz"):
        read_npz(tmp_path / "none.npz", ["a"])
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InvalidInputError, match=r"is no \.npz file of plain arrays"):
        read_npz(tmp_path / "text.npz", ["a"])
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(InvalidInputError, match=r"is no \.npz file of plain arrays"):
        read_npz(tmp_path / "objects.npz", ["a"])
    np.savez(tmp_path / "other.npz", a=np.ones(1), c=np.ones(1))
    with pytest.raises(InvalidInputError, match=r"lacks b and has c besides; .* inputs are a, b"):
        read_npz(tmp_path / "other.npz", ["a", "b"])


def test_outputs_of_any_nesting_are_flattened_by_path() -> None:
    one = np.ones(1)
    assert list(flat(one)) == ["output"]
    assert list(flat((one, {"logits": [one]}))) == ["output.0", "output.1.logits.0"]


def test_output_path_is_checked(tmp_path: Path) -> None:
    check_writable(tmp_path / "a.burnish")
    with pytest.raises(BurnishError, match="it is a folder"):
        check_writable(tmp_path)
    with pytest.raises(BurnishError, match=r"no folder .*none"):
        check_writable(tmp_path / "none" / "a.burnish")
    with pytest.raises(BurnishError, match=r"cannot write /proc/a"):
        check_writable(Path("/proc/a"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.burnish"

    def interrupted() -> None:
        with whole_file(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with whole_file(path) as partial:
        partial.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
