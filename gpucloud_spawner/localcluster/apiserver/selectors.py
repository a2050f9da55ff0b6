"""Label and field selectors: parsing, with Kubernetes' messages, and matching of stored records."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .errors import bad_request
from .resources import Resource
from .store import Labels, Record

LabelTest = Callable[[Labels], bool]
FieldTest = tuple[int, str, bool]  # index of the field, value, wanted equal

_TOKEN = re.compile(r"\s*(==|!=|=|!|\(|\)|,|<|>|[^\s=!(),<>]+)")
_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_SYMBOLS = frozenset({"=", "==", "!=", "!", "(", ")", ",", "<", ">"})


@dataclass(frozen=True)
class Selector:
    """What a list or watch was asked for."""

    labels: tuple[LabelTest, ...] = ()
    fields: tuple[FieldTest, ...] = ()

    @property
    def everything(self) -> bool:
        return not self.labels and not self.fields

    def matches(self, record: Record) -> bool:
        for index, value, wanted in self.fields:
            if (record.fields[index] == value) is not wanted:
                return False
        return all(test(record.labels) for test in self.labels)


def parse(resource: Resource, labels: str, fields: str) -> Selector:
    if not labels and not fields:
        return _EVERYTHING
    return Selector(tuple(_Parser(labels).requirements()), _parse_fields(resource, fields))


_EVERYTHING = Selector()


class _Parser:
    """Recursive descent over `a=b, c in (d,e), !f`."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                raise bad_request(f"unable to parse requirement: unexpected text in {text!r}")
            self._tokens.append(match[1])
            position = match.end()
        self._position = 0

    def _peek(self) -> str:
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._position += 1
        return token

    def _expect(self, wanted: str) -> None:
        found = self._next()
        if found != wanted:
            raise _unexpected(found, f"'{wanted}'")

    def requirements(self) -> list[LabelTest]:
        tests: list[LabelTest] = []
        while self._peek():
            tests.append(self._requirement())
            if self._peek():
                found = self._next()
                if found != ",":
                    raise _unexpected(found, "',' or 'end of string'")
                if not self._peek():
                    raise _unexpected("", "identifier after ','")
        return tests

    def _key(self) -> str:
        key = self._next()
        if key in _SYMBOLS or not key:
            raise _unexpected(key, "!, identifier, or 'end of string'")
        if not _KEY.fullmatch(key):
            raise bad_request(
                f'unable to parse requirement: <nil>: Invalid value: "{key}": name part must '
                "consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
                "an alphanumeric character"
            )
        return key

    def _requirement(self) -> LabelTest:
        if self._peek() == "!":
            self._next()
            key = self._key()
            return lambda labels: key not in labels
        key = self._key()
        operator = self._peek()
        if operator in ("", ","):
            return lambda labels: key in labels
        self._next()
        if operator in ("=", "=="):
            value = self._value()
            return lambda labels: labels.get(key) == value
        if operator == "!=":
            value = self._value()
            return lambda labels: labels.get(key) != value
        if operator == "in":
            values = self._values()
            return lambda labels: labels.get(key) in values
        if operator == "notin":
            values = self._values()
            return lambda labels: labels.get(key) not in values
        if operator in ("<", ">"):
            return self._comparison(key, operator)
        raise _unexpected(operator, "in, notin, =, ==, !=, gt, lt")

    def _comparison(self, key: str, operator: str) -> LabelTest:
        try:
            bound = int(self._value())
        except ValueError:
            raise bad_request(
                f"unable to parse requirement: values[0][{key}]: Invalid value: for 'Gt', 'Lt' "
                "operators, the value must be an integer"
            ) from None

        def compare(labels: Labels) -> bool:
            try:
                number = int(labels.get(key, ""))
            except ValueError:
                return False
            return number < bound if operator == "<" else number > bound

        return compare

    def _value(self) -> str:
        if self._peek() in ("", ","):
            return ""
        value = self._next()
        if value in _SYMBOLS:
            raise _unexpected(value, "identifier")
        if not _VALUE.fullmatch(value):
            raise bad_request(
                f'unable to parse requirement: values[0]: Invalid value: "{value}": a valid label '
                "must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
                "and must start and end with an alphanumeric character"
            )
        return value

    def _values(self) -> frozenset[str]:
        self._expect("(")
        values = {""} if self._peek() == ")" else set()
        while self._peek() != ")":
            values.add(self._value())
            if self._peek() == ",":
                self._next()
                if self._peek() == ")":
                    values.add("")
            elif self._peek() != ")":
                raise _unexpected(self._next(), "',' or ')'")
        self._next()
        return frozenset(values)


def _unexpected(found: str, wanted: str) -> Exception:
    return bad_request(f"unable to parse requirement: found '{found}' expected: {wanted}")


def _parse_fields(resource: Resource, text: str) -> tuple[FieldTest, ...]:
    tests = []
    for term in filter(None, (t.strip() for t in text.split(","))):
        match = re.fullmatch(r"([^=!]+)(==|!=|=)(.*)", term)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        name, operator, value = match.groups()
        index = resource.field_index.get(name)
        if index is None:
            raise bad_request(f"field label not supported: {name}")
        tests.append((index, value, operator != "!="))
    return tuple(tests)
