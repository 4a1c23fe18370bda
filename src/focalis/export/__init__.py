"""Models for other programs: the network in a standard format, and what to do before and after it."""

from focalis.export.folder import FORMATS, export_model

__all__ = ["FORMATS", "export_model"]
