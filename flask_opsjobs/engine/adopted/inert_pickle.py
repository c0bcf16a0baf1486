"""Reads a pickle into plain values without importing or calling anything that it names.

`pickletools.genops` splits the pickle into opcodes, and a stack machine of ours follows them. What a pickle
asks to import, to call or to build becomes an `Opaque`, which only has a name. Nothing here hashes or
compares a value of the pickle, so a hostile key costs nothing.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# A call of 10,000 opcodes takes 20 ms to read. An ordinary call has fewer than 100.
MOST_OPCODES = 10_000
_MARK = object()
# Protocols below 3 write the names that these modules had in Python 2.
_PYTHON_2_MODULES = {"__builtin__": "builtins", "exceptions": "builtins", "copy_reg": "copyreg"}


class Unreadable(ValueError):
    """A value cannot be read. The message ends a sentence and quotes nothing.

    `first` is the first text of the value, if one was read: the name of the function in a call of RQ.
    """

    def __init__(self, why: str, first: str | None = None) -> None:
        self.first = first
        super().__init__(why)


@dataclass(frozen=True)
class Opaque:
    """A class, a function or an object of one, by name only."""

    name: str


@dataclass(eq=False)
class Pairs:
    """A dict of the pickle. Its keys may be anything, so they are not hashed."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)


def read_pickle(raw: bytes) -> Any:
    """The value: None, bool, int, float, str, bytes, list (also for a set), tuple, `Pairs` or `Opaque`.

    Lists, tuples and pairs may contain themselves. Raises only `Unreadable`.
    """
    machine = _Machine()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
            if number == MOST_OPCODES:
                raise Unreadable(f"it has more than {MOST_OPCODES:,} opcodes")
            _follow(machine, opcode.name, argument)
        return machine.pop()
    except Unreadable as error:
        why = str(error)
    except Exception as error:
        why = f"it is not a valid pickle ({type(error).__name__})"
    # Outside of `except`: the error of `pickletools` may quote the pickle, and must not become the context.
    raise Unreadable(why, machine.first_text())


def _follow(machine: _Machine, opcode: str, argument: Any) -> None:
    if opcode in _VALUES:
        machine.push(bytes(argument) if isinstance(argument, bytearray) else argument)
    elif opcode in _NEW:
        machine.push(_NEW[opcode]())
    elif opcode in _WITH_ARGUMENT:
        _WITH_ARGUMENT[opcode](machine, argument)
    elif opcode not in _IGNORED:
        _ON_STACK[opcode](machine)


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def first_text(self) -> str | None:
        first = next((value for value in self.stack if value is not _MARK), None)
        return first if isinstance(first, str) else None

    def mark(self) -> None:
        self.push(_MARK)

    def drop(self) -> None:
        self.stack.pop()

    def repeat(self) -> None:
        self.push(self.stack[-1])

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def memoize(self) -> None:
        self.put(len(self.memo))

    def get(self, place: int) -> None:
        self.push(self.memo[place])

    def make_list(self) -> None:
        self.push(self.pop_to_mark())

    def make_dict(self) -> None:
        self.push(Pairs(_as_pairs(self.pop_to_mark())))

    def make_tuple(self) -> None:
        self.push(tuple(self.pop_to_mark()))

    def make_tuple_of(self, size: int) -> None:
        self.push(tuple([self.pop() for _ in range(size)][::-1]))

    def append(self) -> None:
        value = self.pop()
        self._add_items([value])

    def append_many(self) -> None:
        values = self.pop_to_mark()
        self._add_items(values)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self._add_pairs([(key, value)])

    def set_many(self) -> None:
        pairs = _as_pairs(self.pop_to_mark())
        self._add_pairs(pairs)

    def _add_items(self, values: list[Any]) -> None:
        match self.stack[-1]:
            case list() as holder:
                holder += values
            case Opaque():
                pass  # what is inside of an object is not shown
            case _:
                raise ValueError("items for what is no list")

    def _add_pairs(self, pairs: list[tuple[Any, Any]]) -> None:
        match self.stack[-1]:
            case Pairs() as holder:
                holder.pairs += pairs
            case Opaque():
                pass
            case _:
                raise ValueError("keys for what is no dict")

    def name_global(self, module_and_name: str) -> None:
        module, _, name = module_and_name.partition(" ")
        self.push(_named(module, name))

    def name_stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.push(_named(module, name))

    def name_numbered(self, number: int) -> None:
        self.push(Opaque(f"extension {number}"))

    def name_persistent(self, _: str) -> None:
        self.push(Opaque("persistent object"))

    def name_popped_persistent(self) -> None:
        self.pop()
        self.push(Opaque("persistent object"))

    def call(self) -> None:
        arguments, function = self.pop(), _require_opaque(self.pop())
        self.push(_result_of(function, arguments))

    def make_object(self) -> None:
        self.pop()
        _require_opaque(self.stack[-1])

    def make_object_with_keywords(self) -> None:
        self.pop()
        self.make_object()

    def make_old_object(self) -> None:
        kind, *_ = self.pop_to_mark()
        self.push(_require_opaque(kind))

    def make_named_object(self, module_and_name: str) -> None:
        self.pop_to_mark()
        self.name_global(module_and_name)


def _as_pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(values[::2], values[1::2], strict=True))


def _named(module: Any, name: Any) -> Opaque:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("a name that is no text")
    return Opaque(f"{_PYTHON_2_MODULES.get(module, module)}.{name}")


def _require_opaque(value: Any) -> Opaque:
    if not isinstance(value, Opaque):
        raise ValueError("a call of what is no function or class")
    return value


def _result_of(function: Opaque, arguments: Any) -> Any:
    """The value of a call that Python itself writes for its own types; else an object by name."""
    match function.name, arguments:
        case "builtins.set" | "builtins.frozenset", ([*items],):
            return items
        case "_codecs.encode" | "builtins.bytearray", (str(text), "latin1" | "latin-1"):
            return text.encode("latin-1")
        case "builtins.bytearray", (bytes(raw),):
            return raw
        case "builtins.bytes" | "builtins.bytearray", ():
            return b""
        case "builtins.complex", (float(real), float(imaginary)):
            return str(complex(real, imaginary))
        case "builtins.range" | "builtins.xrange", (int(), int(), int()):
            return f"range{arguments}"
        case "copyreg._reconstructor" | "copyreg.__newobj__", (Opaque() as kind, *_):
            return kind
    return function


_IGNORED = frozenset(("PROTO", "FRAME", "STOP", "READONLY_BUFFER"))
_VALUES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    )
)
_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": Pairs,
    "EMPTY_SET": list,
    "NEXT_BUFFER": lambda: Opaque("buffer"),
}
_WITH_ARGUMENT: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Machine.name_numbered),
    "GLOBAL": _Machine.name_global,
    "INST": _Machine.make_named_object,
    "PERSID": _Machine.name_persistent,
}
_ON_STACK: dict[str, Callable[[_Machine], Any]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.drop,
    "POP_MARK": _Machine.pop_to_mark,
    "DUP": _Machine.repeat,
    "MEMOIZE": _Machine.memoize,
    "LIST": _Machine.make_list,
    "FROZENSET": _Machine.make_list,
    "TUPLE": _Machine.make_tuple,
    "TUPLE1": lambda machine: machine.make_tuple_of(1),
    "TUPLE2": lambda machine: machine.make_tuple_of(2),
    "TUPLE3": lambda machine: machine.make_tuple_of(3),
    "DICT": _Machine.make_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.append_many,
    "ADDITEMS": _Machine.append_many,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_many,
    "STACK_GLOBAL": _Machine.name_stack_global,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.make_object,
    "NEWOBJ_EX": _Machine.make_object_with_keywords,
    "OBJ": _Machine.make_old_object,
    "BUILD": _Machine.pop,
    "BINPERSID": _Machine.name_popped_persistent,
}
