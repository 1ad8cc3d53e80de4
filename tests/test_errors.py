"""Errors survive a worker process, and the tree in the docstring is the tree in the code."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from pathlib import Path

import pytest

from featcache import errors
from featcache.errors import FeatcacheError

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, FeatcacheError)]


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("turn", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy], ids=["pickle", "copy"])
def test_errors_keep_message_and_context(kind, turn):
    back = turn(kind("found 1, expected 2", path="scans/a.nii", case="a"))
    assert type(back) is kind
    assert str(back) == "found 1, expected 2"
    assert (back.path, back.case) == (Path("scans/a.nii"), "a")


def test_context_is_keyword_only():
    with pytest.raises(TypeError):
        FeatcacheError("message", "path")  # type: ignore[misc]
    bare = FeatcacheError("message")
    assert (bare.path, bare.case) == (None, None)


def test_the_tree_in_the_docstring_equals_the_classes():
    drawn = {}
    parents: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│ ├└─]*)([A-Z]\w+)  +\S", line)
        if found:
            depth = len(found[1]) // 4
            parents[depth] = found[2]
            drawn[found[2]] = parents.get(depth - 1, "Exception")
    assert drawn == {c.__name__: c.__base__.__name__ for c in CLASSES}
