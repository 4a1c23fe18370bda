"""Networks: the method's dense family, and those that it is compared with."""

from focalis.networks.base import Network
from focalis.networks.catalogue import NETWORKS, REFINED, build_network, split_name
from focalis.networks.convolutions import Convolution, convolutions
from focalis.networks.dense import DenseConfig, DenseNetwork
from focalis.networks.memory import peak_bytes
from focalis.networks.start import Transfer, transfer

__all__ = [
    "NETWORKS",
    "REFINED",
    "Convolution",
    "DenseConfig",
    "DenseNetwork",
    "Network",
    "Transfer",
    "build_network",
    "convolutions",
    "peak_bytes",
    "split_name",
    "transfer",
]
