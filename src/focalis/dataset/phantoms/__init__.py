"""Generated scans with small irregular lesions and several readers, for demonstrations and tests.

They say nothing about accuracy on patients.
"""

from focalis.dataset.phantoms.phantom import Phantom, PhantomSettings, make_phantom, write_phantoms

__all__ = ["Phantom", "PhantomSettings", "make_phantom", "write_phantoms"]
