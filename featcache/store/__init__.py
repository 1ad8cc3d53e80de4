"""The feature store: the only place that knows Zarr. docs/store-format.md is its specification."""

from featcache.store.case import Case, LabelSet, Level
from featcache.store.casewriter import CaseWriter
from featcache.store.documents import CaseInfo, LevelInfo, RootDocument
from featcache.store.levels import LevelWriter
from featcache.store.pool import StorePool
from featcache.store.private import PrivateRecord, SourceState, private_path
from featcache.store.reader import FeatureStore
from featcache.store.verify import Finding, Report, verify
from featcache.store.writer import StoreWriter

__all__ = [
    "Case",
    "CaseInfo",
    "CaseWriter",
    "FeatureStore",
    "Finding",
    "LabelSet",
    "Level",
    "LevelInfo",
    "LevelWriter",
    "PrivateRecord",
    "Report",
    "RootDocument",
    "SourceState",
    "StorePool",
    "StoreWriter",
    "private_path",
    "verify",
]
