"""Options of a scheme: typed parameters of the function that makes it, and their spelling after its name.

A scheme with options is chosen by `{name: sliding_tile, window: [3, 3, 3]}` or by the text
`sliding_tile(window=[3,3,3])`, in which only options that differ from their defaults occur, in the function's order.
Equal choices so have equal texts.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, get_args, get_origin, get_type_hints

from timesformer.attention.scheme import Scheme
from timesformer.errors import InputError

Value = bool | int | float | str | tuple[Any, ...]
Options = dict[str, Value]
TEXT = re.compile(r"([A-Za-z_]\w*)\((.*)\)")


@dataclass(frozen=True)
class Maker:
    """A scheme, or a function that makes one from options, as a scheme's file lists them.

    Raises:
        InputError: a parameter of the function without a default, or of a type that no option has.
    """

    make: Scheme | Callable[..., Scheme]
    default: Scheme = field(init=False)
    types: dict[str, Any] = field(init=False, compare=False, repr=False)
    defaults: Options = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        types: dict[str, Any] = {}
        defaults: Options = {}
        made = self.make
        if not isinstance(made, Scheme):
            types = {name: kind for name, kind in get_type_hints(made).items() if name != "return"}
            for name, parameter in inspect.signature(made).parameters.items():
                if parameter.default is inspect.Parameter.empty or name not in types:
                    raise InputError(f"scheme {made.__name__}: option {name!r}: expected a type and a default")
                defaults[name] = checked(made.__name__, name, types[name], parameter.default)
            made = made()
        if not isinstance(made, Scheme):
            raise InputError(f"attention: expected a Scheme, got {type(made).__name__}")
        object.__setattr__(self, "types", types)
        object.__setattr__(self, "defaults", defaults)
        object.__setattr__(self, "default", made)

    @property
    def names(self) -> tuple[str, ...]:
        """The scheme's name and its aliases."""
        return self.default.name, *self.default.aliases

    def chosen(self, given: Mapping[str, Any]) -> Options:
        """Return the options that differ from their defaults, checked, in the function's order.

        Raises:
            InputError: an option that the scheme does not have, or a value of another type.
        """
        name = self.default.name
        for option in given:
            if option not in self.types:
                known = f"expected one of {', '.join(self.types)}" if self.types else "it has none"
                raise InputError(f"attention {name}: unknown option {option!r}; {known}")
        found: Options = {}
        for option, kind in self.types.items():
            value = checked(name, option, kind, given.get(option, self.defaults[option]))
            if value != self.defaults[option]:
                found[option] = value
        return found

    def scheme(self, options: Options) -> Scheme:
        """Return the scheme with these options.

        Raises:
            InputError: values that the scheme refuses; the message names it.
        """
        if isinstance(self.make, Scheme) or not options:
            return self.default
        return _made(self.make, tuple(options.items()))


@lru_cache(maxsize=256)
def _made(make: Callable[..., Scheme], options: tuple[tuple[str, Value], ...]) -> Scheme:
    try:
        return make(**dict(options))
    except InputError as error:
        raise InputError(f"attention {make.__name__}: {error}") from error


def checked(scheme: str, option: str, kind: Any, value: Any) -> Value:
    """Return the value of an option as its type; whole numbers are taken for numbers, and lists for tuples.

    Raises:
        InputError: a value of another type; the message names the scheme and the option.
    """
    found = _as(kind, value)
    if found is None:
        raise InputError(f"attention {scheme}: option {option}: expected {_words(kind)}, got {value!r}")
    return found


def _as(kind: Any, value: Any) -> Value | None:
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if not isinstance(value, list | tuple):
            return None
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(value)
        parts = [_as(each, part) for each, part in zip(kinds, value, strict=False)]
        return tuple(parts) if len(value) == len(kinds) and None not in parts else None
    if kind is bool or isinstance(value, bool):
        return value if kind is bool and isinstance(value, bool) else None
    if kind is float and isinstance(value, int | float):
        return float(value)
    return value if kind in (int, str) and isinstance(value, kind) else None


def _words(kind: Any) -> str:
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis:
            return f"a list, each {_words(kinds[0])}"
        return f"a list of {len(kinds)}, each {_words(kinds[0])}"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}.get(kind, str(kind))


def plain(options: Mapping[str, Value]) -> dict[str, Any]:
    """Return options as plain data, with lists for tuples."""
    data: dict[str, Any] = json.loads(json.dumps(options))
    return data


def spell(name: str, options: Mapping[str, Value]) -> str:
    """Return the text of a choice: the name, and in brackets the options."""
    if not options:
        return name
    values = (f"{option}={json.dumps(value, separators=(',', ':'))}" for option, value in options.items())
    return f"{name}({','.join(values)})"


def unspell(text: str) -> tuple[str, dict[str, Any]]:
    """Return name and options of a choice's text.

    Raises:
        InputError: no such text.
    """
    if "(" not in text:
        return text, {}
    match = TEXT.fullmatch(text)
    if match is None:
        raise InputError(f"attention: expected the name of a scheme, or name(option=value,…), got {text!r}")
    options: dict[str, Any] = {}
    rest, decoder = match[2] or "", json.JSONDecoder()
    while rest:
        option, equals, rest = rest.partition("=")
        option, rest = option.strip(), rest.lstrip()
        if option in options:
            raise InputError(f"attention {match[1]}: option {option} is given twice in {text!r}")
        try:
            options[option], end = decoder.raw_decode(rest)
        except json.JSONDecodeError as error:
            raise InputError(f"attention {match[1]}: option {option}: expected a value, got {rest!r}") from error
        if not equals or (rest[end:] and rest[end] != ","):
            raise InputError(f"attention: expected the name of a scheme, or name(option=value,…), got {text!r}")
        rest = rest[end + 1 :]
    return match[1], options
