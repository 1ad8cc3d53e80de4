"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from featcache.errors import FeatcacheError


def write_whole(path: Path, text: str) -> None:
    """Write `text` as UTF-8, line ends as they are, beside `path` first; then put it in its place.

    Raises
    ------
    FeatcacheError
        If the file cannot be written; what was there before stays.
    """
    part = path.with_name(f".{path.name}.partial")
    try:
        part.write_bytes(text.encode("utf-8"))
        part.replace(path)
    except OSError as error:
        raise FeatcacheError(
            f"{path}: cannot be written ({error}); expected a file in a folder that exists and may be written",
            path=path,
        ) from error
    finally:
        part.unlink(missing_ok=True)
