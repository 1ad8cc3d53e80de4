"""Scans and labels: found (`discover`), read (`read_scan`, `read_labels`), refused with a reason."""

from featcache.scans.discover import discover
from featcache.scans.labels import label_values, numbered_classes, read_labels
from featcache.scans.read import read_header, read_scan
from featcache.scans.types import Annotated, Discovery, LabelSource, LabelVolume, Scan, ScanSource, Unit

__all__ = [
    "Annotated",
    "Discovery",
    "LabelSource",
    "LabelVolume",
    "Scan",
    "ScanSource",
    "Unit",
    "discover",
    "label_values",
    "numbered_classes",
    "read_header",
    "read_labels",
    "read_scan",
]
