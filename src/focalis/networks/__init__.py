"""Networks: the method's dense family."""

from focalis.networks.base import Network
from focalis.networks.catalogue import NETWORKS, build_network
from focalis.networks.dense import DenseConfig, DenseNetwork
from focalis.networks.memory import peak_bytes

__all__ = ["NETWORKS", "DenseConfig", "DenseNetwork", "Network", "build_network", "peak_bytes"]
