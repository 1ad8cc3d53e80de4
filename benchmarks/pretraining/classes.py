"""The classes of the built-in encoder's head."""

from featcache.phantom import KNOWN_STRUCTURES

CLASSES = ("background", *KNOWN_STRUCTURES)
