"""Sealed documents: JSON whose own SHA-256 stands in it, so that any changed byte is found.

The digest is that of the file's bytes with the digest's 64 digits replaced by zeros; see
docs/store-format.md, section "Seals".
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from featcache.errors import CorruptStore, StoreError

_BLANK = "0" * 64


def to_json(document: Any) -> bytes:
    """Return the bytes that a document is stored as: sorted, indented, no NaN.

    Raises
    ------
    StoreError
        If it holds something that JSON cannot say.
    """
    try:
        text = json.dumps(document, allow_nan=False, sort_keys=True, indent=1, ensure_ascii=False)
        return text.encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise StoreError(f"a document for the store must be finite JSON: {error}") from error


def seal(document: dict[str, Any]) -> bytes:
    """Return the bytes of `document` with its seal set; the argument is not changed.

    The seal goes into ``attributes.featcache.sha256``, or to the top level where there are no attributes.
    """
    sealed = json.loads(to_json(document))
    slot = _slot(sealed)
    slot["sha256"] = _BLANK
    slot["sha256"] = hashlib.sha256(to_json(sealed)).hexdigest()
    return to_json(sealed)


def unseal(data: bytes, path: Path) -> dict[str, Any]:
    """Return the featcache part of a sealed document, its own digest under ``sha256``.

    Parameters
    ----------
    data : bytes
        The whole file.
    path : Path
        Its name, for the message.

    Raises
    ------
    CorruptStore
        If the bytes are not those that were sealed.
    """
    try:
        slot = _slot(json.loads(data))
        digest = slot["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStore(
            f"{path}: expected a sealed JSON document, found {_describe(data)}; run `featcache verify`",
            path=path,
        ) from error
    # Parsed text is never compared: only bytes tell 1e5 from 1E5.
    if not (
        isinstance(digest, str)
        and re.fullmatch("[0-9a-f]{64}", digest)
        and data.count(digest.encode()) == 1
        and hashlib.sha256(data.replace(digest.encode(), _BLANK.encode())).hexdigest() == digest
    ):
        raise CorruptStore(
            f"{path}: the document differs from its own SHA-256, so it was changed or damaged after it "
            "was written; run `featcache verify`",
            path=path,
        )
    assert isinstance(slot, dict)
    return slot


def _slot(document: Any) -> Any:
    return document["attributes"]["featcache"] if "attributes" in document else document


def _describe(data: bytes) -> str:
    return f"{len(data)} bytes that begin with {data[:20]!r}" if data else "an empty file"
