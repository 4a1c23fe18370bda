"""Models for other programs: the network in a standard format, and what to do before and after it."""

from focalis.export.folder import BUNDLE, FORMATS, export_model

__all__ = ["BUNDLE", "FORMATS", "export_model"]
