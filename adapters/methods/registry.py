"""Names -> methods: ours, and those that installed packages bring as entry points of the group "featcache.methods"."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from adapters.methods.base import Method
from featcache.errors import TaskError

GROUP = "featcache.methods"

_METHODS: dict[str, Method] = {}
_seen: set[tuple[str, str]] = set()


def register(method: Method) -> None:
    """Make `method` known by its name; a name can be taken once."""
    if method.name in _METHODS:
        raise TaskError(f"a method called {method.name!r} is registered already; choose another name")
    _METHODS[method.name] = method


def method_names() -> tuple[str, ...]:
    """Return the names of all methods."""
    _register_installed()
    return tuple(_METHODS)


def get_method(name: str) -> Method:
    """Return the method called `name`; TaskError listing all names if there is none."""
    if name not in _METHODS:
        _register_installed()
    if name not in _METHODS:
        raise TaskError(f"--method {name!r}: expected one of {', '.join(_METHODS)}")
    return _METHODS[name]


def _register_installed() -> None:
    """Register the methods of installed packages, each once."""
    for point in entry_points(group=GROUP):
        if (point.name, point.value) not in _seen:
            _seen.add((point.name, point.value))
            register(_load(point))


def _load(point: EntryPoint) -> Method:
    package = point.dist.name if point.dist is not None else point.value
    try:
        method = point.load()
    except (ImportError, AttributeError) as error:
        raise TaskError(
            f"the method {point.name!r} of the package {package!r} cannot be loaded: {error}; update or remove it"
        ) from error
    if not isinstance(method, Method) or method.name != point.name:
        raise TaskError(
            f"the entry point {point.name!r} of the package {package!r} gives {method!r}; expected an "
            "adapters.methods.Method of that name"
        )
    return method
