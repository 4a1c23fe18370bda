"""Public data sets: where they lie, under which licence, and how they come onto this machine."""

from focalis.dataset.public.fetch import default_folder, fetch, find_copy
from focalis.dataset.public.registry import PUBLIC_SETS, PublicSet, public_set

__all__ = ["PUBLIC_SETS", "PublicSet", "default_folder", "fetch", "find_copy", "public_set"]
