"""Models for other programs: the network in a standard format, and what to do before and after it."""

from focalis.export.folder import FORMATS, Format, export_model

__all__ = ["FORMATS", "Format", "export_model"]
