"""A generated, labelled CT cohort: thorax and abdomen of people who differ, at sites that differ.

`generate` makes one scan, `write_cohort` NIfTI files. Not a simulation of physics: shapes, tissues and scanner
effects are as a radiology department would recognise them, so that everything that featcache does can be tried,
tested and measured with nothing downloaded.
"""

from featcache.phantom.cohort import PhantomScan, generate, write_cohort
from featcache.phantom.person import Population
from featcache.phantom.scanner import Acquisition
from featcache.phantom.sites import (
    DEMO_SITE,
    KNOWN_STRUCTURES,
    SHIFTED_SITES,
    TRAINING_SITES,
    Site,
    find_site,
    known_sites,
)
from featcache.phantom.structures import NEW_STRUCTURES, STRUCTURES, TISSUE_VALUES, TISSUES

__all__ = [
    "DEMO_SITE",
    "KNOWN_STRUCTURES",
    "NEW_STRUCTURES",
    "SHIFTED_SITES",
    "STRUCTURES",
    "TISSUES",
    "TISSUE_VALUES",
    "TRAINING_SITES",
    "Acquisition",
    "PhantomScan",
    "Population",
    "Site",
    "find_site",
    "generate",
    "known_sites",
    "write_cohort",
]
