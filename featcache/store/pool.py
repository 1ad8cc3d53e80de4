"""Several stores read as one: sites that pool features of one encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featcache.errors import FeaturesNotFound, StoreError
from featcache.store.case import Case
from featcache.store.reader import FeatureStore


class StorePool(FeatureStore):
    """Stores of one encoder, read as if they were one; nothing is copied.

    A case that two stores hold under one id is named "store/id" after its store's folder (without .zarr), or after
    the whole path where folders have one name; all others keep their ids.

    Attributes
    ----------
    path : Path
        The stores' paths, joined for messages.
    root : RootDocument
        Of the first store; the head is that of the first store that has one.
    stores : tuple of FeatureStore
    """

    def __init__(self, stores: Sequence[FeatureStore]) -> None:
        heads = [store.root.head for store in stores if store.root.head is not None]
        root = dataclasses.replace(stores[0].root, head=heads[0] if heads else None)
        super().__init__(Path(" + ".join(str(store.path) for store in stores)), root)
        self.stores = tuple(stores)

    @classmethod
    def of(cls, paths: Sequence[Path], *, other_recipe: bool = False) -> FeatureStore:
        """Return the stores at `paths` as one; a single one as it is.

        Raises
        ------
        StoreError
            If there is none, one is named twice, the encoders differ, or the recipes do and `other_recipe` is False;
            the message shows the fields that differ.
        """
        stores = [FeatureStore.open(path) for path in paths]
        if not stores:
            raise StoreError("no store named; expected one with --store")
        first = stores[0]
        for number, store in enumerate(stores):
            if any(store.path.resolve() == other.path.resolve() for other in stores[:number]):
                raise StoreError(
                    f"--store {store.path} is named twice; expected each store once", path=store.path
                )
            if store.root.encoder_id != first.root.encoder_id:
                fields = _differences(first.root.card, store.root.card)
                raise StoreError(
                    f"{store.path} holds features of another encoder than {first.path}: "
                    f"{fields or 'the cards are equal, the weights are not'}. Features of two encoders have nothing in "
                    "common: extract the scans with one of them",
                    path=store.path,
                )
            if store.root.recipe_id != first.root.recipe_id and not other_recipe:
                raise StoreError(
                    f"{store.path} was made by another recipe than {first.path}: "
                    f"{_differences(first.root.recipe, store.root.recipe)}. Features differ slightly by that: extract "
                    "again with one recipe, or pass --other-recipe to train on both all the same",
                    path=store.path,
                )
        return stores[0] if len(stores) == 1 else cls(stores)

    @property
    def name(self) -> str:
        """The folders' names."""
        return ", ".join(store.name for store in self.stores)

    def cases(self) -> list[str]:
        """Return the ids of the complete cases, sorted."""
        return sorted(self._places(None))

    def labelled(self, name: str = "labels") -> list[str]:
        """Return the ids of the complete cases that have the label set `name`, sorted."""
        return sorted(self._places(name))

    def case(self, case: str) -> Case:
        """Return a case by its id in the pool.

        Raises
        ------
        FeaturesNotFound
            If no store has it, or several do.
        CorruptStore
            If it has lost its commit.
        """
        places = self._places(None)
        if case not in places:
            several = [name for name in places if name.endswith(f"/{case}")]
            raise FeaturesNotFound(
                f"{self.path}: no case {case!r}; "
                + (f"it is one of {', '.join(several)}" if several else f"there are {len(places)} others"),
                case=case,
            )
        store, own = places[case]
        return store.case(own)

    def _places(self, labels: str | None) -> dict[str, tuple[FeatureStore, str]]:
        """Return store and id there of every case, or of those with labels, by its id in the pool."""
        ids = [store.cases() for store in self.stores]
        stems = [store.path.resolve().name.removesuffix(".zarr") for store in self.stores]
        if len(set(stems)) < len(stems):
            stems = [str(store.path) for store in self.stores]
        count: dict[str, int] = {}
        for case in (case for held in ids for case in held):
            count[case] = count.get(case, 0) + 1
        places: dict[str, tuple[FeatureStore, str]] = {}
        for store, stem, held in zip(self.stores, stems, ids, strict=True):
            wanted = held if labels is None else store.labelled(labels)
            places |= {case if count[case] == 1 else f"{stem}/{case}": (store, case) for case in wanted}
        return places


def _differences(one: Any, other: Any, where: str = "") -> str:
    """Return the fields in which two JSON documents differ, as "field: a, b"."""
    if isinstance(one, dict) and isinstance(other, dict):
        parts = [
            _differences(one.get(key), other.get(key), f"{where}.{key}" if where else str(key))
            for key in sorted({*one, *other})
        ]
        return "; ".join(part for part in parts if part)
    if one == other:
        return ""
    shown = [text if len(text := str(value)) <= 40 else text[:37] + "..." for value in (one, other)]
    return f"{where}: {shown[0]} there, {shown[1]} here"
