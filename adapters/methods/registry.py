"""Names -> methods."""

from __future__ import annotations

from adapters.methods.base import Method
from featcache.errors import TaskError

_METHODS: dict[str, Method] = {}


def register(method: Method) -> None:
    """Make `method` known by its name; a name can be taken once."""
    if method.name in _METHODS:
        raise TaskError(f"a method called {method.name!r} is registered already; choose another name")
    _METHODS[method.name] = method


def method_names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return tuple(_METHODS)


def get_method(name: str) -> Method:
    """Return the method called `name`; TaskError listing all names if there is none."""
    if name not in _METHODS:
        raise TaskError(f"--method {name!r}: expected one of {', '.join(_METHODS)}")
    return _METHODS[name]
