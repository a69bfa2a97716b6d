"""Schemes by name: those in `timesformer/attention/schemes/`, and a user's own files and `Scheme` objects.

A file lists schemes, and functions that make one from options (`timesformer.attention.options`).
"""

import hashlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from timesformer.attention import schemes
from timesformer.attention.options import Maker, Options, spell, unspell
from timesformer.attention.scheme import Scheme
from timesformer.errors import InputError


@dataclass(frozen=True)
class SchemeSource:
    """The Python file that declared a scheme: where it lay, its content, and the content's sha256."""

    path: Path
    content: bytes
    sha256: str


_added: dict[str, Maker] = {}
_sources: dict[str, SchemeSource] = {}  # by the scheme's name
_files: dict[str, tuple[Scheme, ...]] = {}  # by the file's sha256


@lru_cache(maxsize=1)
def _shipped() -> dict[str, Maker]:
    found: dict[str, Maker] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(schemes.__path__)):
        for scheme in import_module(f"{schemes.__name__}.{module}").SCHEMES:
            _add(found, Maker(scheme))
    return found


def _add(table: dict[str, Maker], maker: Maker) -> None:
    for name in maker.names:
        if name in table and table[name].default != maker.default:
            raise InputError(f"attention scheme {name!r}: expected a new name, it belongs to {table[name].names[0]!r}")
    for name in maker.names:
        table[name] = maker


def names() -> tuple[str, ...]:
    """Names of all registered schemes, without aliases, in alphabetical order."""
    return tuple(sorted({maker.default.name for maker in (_shipped() | _added).values()}))


def is_known(name: str, *, shipped: bool = False) -> bool:
    """True if a scheme has this name or alias; with `shipped`, if it is one of this library's."""
    return name in (_shipped() if shipped else _shipped() | _added)


def source_of(name: str) -> SchemeSource | None:
    """Return the file that declared a user's scheme; None for a scheme of this library or registered in Python."""
    return _sources.get(build(name).name)


def build(attention: str | Mapping[str, Any]) -> Scheme:
    """Return the scheme with this name or alias, its options after it or beside it (`timesformer.attention.options`).

    Raises:
        InputError: no scheme has the name, and the message lists the known names; or an option that it does not have.
    """
    name, options = chosen(attention)
    return maker_of(name).scheme(options)


def chosen(attention: str | Mapping[str, Any]) -> tuple[str, Options]:
    """Return the name of a scheme and those of its options that differ from their defaults.

    Raises:
        InputError: as for `build`.
    """
    if isinstance(attention, str):
        name, given = unspell(attention)
    else:
        given = dict(attention)
        name = given.pop("name", None)
        if not isinstance(name, str):
            raise InputError(f"attention: expected a name and the options beside it, got {dict(attention)!r}")
    return name, maker_of(name).chosen(given)


def spelling(attention: str | Mapping[str, Any]) -> str:
    """Return the text of a choice, the same for equal choices: a name, or name(option=value,…).

    Raises:
        InputError: as for `build`.
    """
    return spell(*chosen(attention))


def defaults(name: str) -> Options:
    """Return the options of a scheme with their defaults; empty for a scheme without options.

    Raises:
        InputError: no scheme has the name.
    """
    return dict(maker_of(name).defaults)


def maker_of(name: str) -> Maker:
    """Return the entry of a name or alias.

    Raises:
        InputError: no scheme has the name; the message lists the known names.
    """
    table = _shipped() | _added
    if name not in table:
        raise InputError(f"attention: unknown scheme {name!r}; expected one of {', '.join(names())}")
    return table[name]


def register(scheme: Scheme | Callable[..., Scheme]) -> Scheme:
    """Register a scheme, or a function that makes one from options, for this process, and return it with its defaults.

    Raises:
        InputError: not a `Scheme`, or another scheme has one of the names.
    """
    if not isinstance(scheme, Scheme) and not callable(scheme):
        raise InputError(f"attention: expected a Scheme, got {type(scheme).__name__}")
    maker = Maker(scheme)
    _add(_shipped() | _added, maker)
    _add(_added, maker)
    return maker.default


def load_file(path: str | Path) -> tuple[Scheme, ...]:
    """Run a Python file that defines `SCHEMES`, a list of `Scheme`, and register these schemes.

    The file is executed as code: load only files that you trust.  A copy of a file that was run before is not run
    again.

    Raises:
        InputError: the file does not exist, fails, or defines no `SCHEMES`.
    """
    path = Path(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise InputError(f"scheme file {path}: expected an existing Python file")
    content = path.read_bytes()
    source = SchemeSource(path, content, hashlib.sha256(content).hexdigest())
    if source.sha256 not in _files:
        _files[source.sha256] = _run(path, spec, spec.loader)
    schemes = tuple(register(scheme) for scheme in _files[source.sha256])
    for scheme in schemes:
        _sources[scheme.name] = source
    return schemes


def _run(path: Path, spec: ModuleSpec, loader: Loader) -> tuple[Scheme, ...]:
    """Return the schemes that a file defines.  Raises InputError as `load_file` does."""
    module = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except Exception as error:
        raise InputError(f"scheme file {path}: {type(error).__name__}: {error}") from error
    found = getattr(module, "SCHEMES", None)
    if not isinstance(found, Iterable):
        raise InputError(f"scheme file {path}: expected a list named SCHEMES with the file's schemes")
    return tuple(found)
