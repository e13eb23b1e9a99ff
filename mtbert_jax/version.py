"""The version of this library: below everything, so that any file can name it."""

__version__ = "0.1.0"
