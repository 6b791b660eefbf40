"""Relay's text format (``mod.astext()``) -> :class:`Graph`.

Traps of the format, each handled here:

1. Names are printed raw. A reference is the longest declared name that fits, so that
   ``%input.1`` is a parameter where one is declared, and field 1 of ``%input`` otherwise.
2. Attributes at their default are left out (:mod:`attributes` has them).
3. Numbers keep six digits: reported in :attr:`Graph.warnings`.
4. Large constants stand in the metadata section, which may be missing.

The grammar is parsed by generators on a stack of their own: expressions may nest at will.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import numpy as np

from burnish.compiler.importers.relay.attributes import complete, is_operator
from burnish.compiler.importers.relay.graph import (
    Call,
    Constant,
    Function,
    Global,
    Graph,
    GraphBuilder,
    Id,
    If,
    Item,
    Let,
    Opaque,
    Operator,
    RelayError,
    Tuple,
    Type,
    Var,
    entry_of,
)
from burnish.compiler.importers.relay.text_meta import Metadata
from burnish.compiler.importers.relay.text_scan import GLOBAL, Scanner, sections

TEMPORARY = re.compile(r"%(\d+) = ")
WORD = re.compile(r"[A-Za-z_][\w.]*")
ATTRIBUTE = re.compile(r"([A-Za-z_][\w.]*)=(?!=)")
META = re.compile(r"meta\[([\w.]+)\]\[(\d{1,9})\]")
META_ATTRIBUTES = re.compile(r"meta\[(relay\.attrs\.\w+)\]\[(\d{1,9})\]")
FIELD = re.compile(r"\.(\d{1,9})")
PARAMETER_END = re.compile(r": |, %|,\n|\)(?=[\s{])")
LET_END = re.compile(r": | = ")
MAX_NAME = 1000
MAX_LIST_DEPTH = 16

Step = Generator[Any, Any, Any]


def read_text(data: bytes, what: str = "the file") -> Graph:
    """The module's ``main`` and what it calls; raises :class:`RelayError` with what is wrong."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise RelayError(f"{what} is no text in UTF-8: {error}") from None
    return _Reader(text, what).graph()


def _run(step: Step) -> Any:
    """Run a parser's generator; what it yields is run in its place, without Python's stack."""
    stack, value = [step], None
    while stack:
        try:
            inner = stack[-1].send(value)
        except StopIteration as done:
            stack.pop()
            value = done.value
        else:
            stack.append(inner)
            value = None
    return value


class _Reader:
    def __init__(self, text: str, what: str) -> None:
        self.sections = sections(text, what)
        self.scan = Scanner(text, what)
        self.made = GraphBuilder()
        self.meta = Metadata(self.sections, what)
        self.names: dict[str, Id] = {}
        self.lengths: list[int] = []

    def graph(self) -> Graph:
        functions = self.sections.functions
        if not functions:
            raise RelayError(
                f"{self.scan.what} has no Relay function: the text of a module has a line that "
                "begins with 'def @main' (mod.astext(show_meta_data=True) writes it)"
            )
        entry = entry_of(list(functions))
        done: dict[str, Id] = {}
        wanted = [entry]
        while wanted:
            name = wanted.pop()
            if name in done:
                continue
            if name not in functions:
                raise RelayError(f"{self.scan.what} calls @{name}, which it does not define")
            first = len(self.made.nodes)
            self.scan.at, self.scan.end = functions[name]
            self.names = {}
            done[name] = _run(self._function())
            self.scan.skip()
            if self.scan.at != self.scan.end:
                raise self.scan.unexpected("the end of the function")
            wanted += [n.name for n in self.made.nodes[first:] if isinstance(n, Global)]
        warnings: tuple[str, ...] = ()
        if self.scan.rounded:
            warnings = (
                f"{self.scan.what}: {self.scan.rounded} numbers have six digits, which is all that "
                "Relay's text keeps: results may differ from the seventh digit on; "
                "tvm.ir.save_json keeps every digit",
            )
        return self.made.graph(done, entry, warnings)

    def _add(self, node: Any, place: str | None = None) -> Id:
        return self.made.add(node, place or self.scan.place())

    def _function(self) -> Step:
        """``(%x: T, Primitive=1) -> T { ... }``, after ``fn`` or the name."""
        scan = self.scan
        before = dict(self.names)
        if scan.accept("["):
            scan._types("]", 0)
        scan.expect("(")
        params: list[Id] = []
        marks: dict[str, Any] = {}
        while not scan.accept(")"):
            if scan.accept("%"):
                params.append(self._parameter())
            elif found := scan.match(ATTRIBUTE):
                marks[found[1]] = self._value()
            else:
                raise scan.unexpected("a parameter")
            if not scan.accept(","):
                scan.expect(")")
                break
        if scan.accept("->"):
            scan.type()
        scan.expect("{")
        place = scan.place()
        body = yield self._block("}")
        self.names = before
        return self._add(Function(tuple(params), body, marks), place)

    def _parameter(self) -> Id:
        name = self._declared(PARAMETER_END)
        kind: Type = self.scan.type() if self.scan.accept(":") else None
        return self._declare(name, Var(name, kind))

    def _declared(self, ending: re.Pattern[str]) -> str:
        """A name where it is declared: up to its type, or what follows."""
        scan = self.scan
        line_end = scan.text.find("\n", scan.at, scan.end)
        found = ending.search(scan.text, scan.at, scan.end if line_end < 0 else line_end + 1)
        if found is None or not 0 < found.start() - scan.at <= MAX_NAME:
            raise scan.unexpected("a name")
        name = scan.text[scan.at : found.start()]
        scan.at = found.start()
        return name

    def _declare(self, name: str, node: Any) -> Id:
        at = node if isinstance(node, int) else self._add(node)
        self.names[name] = at
        if len(name) not in self.lengths:
            self.lengths = sorted([*self.lengths, len(name)], reverse=True)
        return at

    def _reference(self) -> Id:
        """The longest declared name that the text goes on with."""
        scan = self.scan
        for length in self.lengths:
            end = scan.at + length
            at = self.names.get(scan.text[scan.at : end]) if end <= scan.end else None
            if at is not None and not re.compile(r"\w").match(scan.text, end):
                scan.at = end
                return at
        raise scan.unexpected("a declared name after %")

    def _block(self, closing: str) -> Step:
        """Statements and a last expression, up to ``closing``."""
        scan = self.scan
        before = dict(self.names) if closing == "}" else self.names
        lets: list[tuple[Id, Id, str]] = []
        while True:
            if found := scan.match(TEMPORARY):
                value = yield self._expression()
                self._declare(found[1], value)
                scan.expect(";")
            elif scan.match(re.compile(r"let %")):
                place = scan.place()
                name = self._declared(LET_END)
                kind = scan.type() if scan.accept(":") else None
                scan.expect("=")
                var = self._declare(name, Var(name, kind))
                value = yield self._expression()
                scan.expect(";")
                lets.append((var, value, place))
            else:
                break
        result = yield self._expression()
        scan.expect(closing)
        for var, value, place in reversed(lets):
            result = self._add(Let(var, value, result), place)
        self.names = before
        return result

    def _expression(self) -> Step:
        scan = self.scan
        result = yield self._primary()
        while True:
            if scan.sees("(") and not isinstance(self.made.nodes[result], Constant):
                result = yield self._call(result)
            elif field := scan.match(FIELD):
                result = self._add(Item(result, int(field[1])))
            else:
                return result

    def _primary(self) -> Step:
        scan = self.scan
        if scan.accept("%"):
            return self._reference()
        if found := scan.match(META):
            return self._add(Constant(self.meta.constant(found[1], int(found[2]))))
        if found := scan.match(re.compile(r"(True|False)\b")):
            return self._add(Constant(np.asarray(found[1] == "True")))
        if (number := scan.number()) is not None:
            return self._add(Constant(number))
        if found := scan.match(GLOBAL):
            return self._add(Global(found[0][1:]))
        if scan.accept("("):
            return (yield self._parenthesis())
        if scan.match(re.compile(r"if \(")):
            return (yield self._if())
        if scan.match(re.compile(r"fn(?=[ (\[])")):
            return (yield self._function())
        found = scan.match(WORD)
        if found is None:
            raise scan.unexpected("an expression")
        return self._word(found[0])

    def _word(self, name: str) -> Id:
        if name == "match" or (name[0].isupper() and not is_operator(name)):
            raise self.scan.error(
                f"{name}: algebraic data types and match are not supported; export the model "
                "without them (lists as tensors, loops unrolled)"
            )
        if name in ("ref", "ref_read", "ref_write"):
            raise self.scan.error(f"{name}: references are not supported")
        return self._add(Operator(name))

    def _parenthesis(self) -> Step:
        """A tuple, one expression, or a block of its own."""
        scan = self.scan
        scan.skip()
        if scan.sees("let %") or TEMPORARY.match(scan.text, scan.at):
            return (yield self._block(")"))
        fields: list[Id] = []
        lone = False
        while not scan.accept(")"):
            fields.append((yield self._expression()))
            if not scan.accept(","):
                scan.expect(")")
                lone = len(fields) == 1
                break
        return fields[0] if lone else self._add(Tuple(tuple(fields)))

    def _if(self) -> Step:
        scan = self.scan
        place = scan.place()
        cond = yield self._expression()
        scan.expect(")")
        scan.expect("{")
        then = yield self._block("}")
        scan.expect("else")
        scan.expect("{")
        other = yield self._block("}")
        return self._add(If(cond, then, other), place)

    def _call(self, op: Id) -> Step:
        scan = self.scan
        place = scan.place()
        scan.expect("(")
        args: list[Id] = []
        attrs: dict[str, Any] = {}
        while not scan.accept(")"):
            if found := scan.match(ATTRIBUTE):
                attrs[found[1]] = self._value()
            elif found := scan.match(META_ATTRIBUTES):
                attrs |= self.meta.attributes(found[1], int(found[2]))
            else:
                args.append((yield self._expression()))
            if not scan.accept(","):
                scan.expect(")")
                break
        called = self.made.nodes[op]
        if isinstance(called, Operator) and is_operator(called.name):
            try:
                attrs = complete(called.name, attrs)
            except RelayError as error:
                raise scan.error(error.message) from None
        return self.made.add(Call(op, tuple(args), attrs), place, scan.result_type())

    def _value(self, depth: int = 0) -> Any:
        """An attribute's value."""
        scan = self.scan
        if depth > MAX_LIST_DEPTH:
            raise scan.error("attribute values nest too deep")
        if (text := scan.string()) is not None:
            return text
        if scan.accept("["):
            found = []
            while not scan.accept("]"):
                found.append(self._value(depth + 1))
                if not scan.accept(","):
                    scan.expect("]")
                    break
            return tuple(found)
        if word := scan.match(re.compile(r"(True|False|None|\?)(?!\w)")):
            return {"True": True, "False": False}.get(word[1])
        if (number := scan.setting()) is not None:
            return number
        if meta := scan.match(META):
            return self.meta.value(meta[1], int(meta[2]))
        if word := scan.match(re.compile(r"[^\s,()\]]+")):
            return Opaque(word[0])
        raise scan.unexpected("the value of an attribute")
