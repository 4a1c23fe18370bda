"""Networks: the method's dense family, those that it is compared with, and those that other packages offer."""

from focalis.networks.base import Network, all_outputs
from focalis.networks.catalogue import (
    NETWORKS,
    REFINED,
    build_network,
    is_foreign,
    network_names,
    network_spec,
    split_name,
)
from focalis.networks.convolutions import Convolution, convolutions
from focalis.networks.dense import DenseConfig, DenseNetwork
from focalis.networks.dry import dry, needs_data
from focalis.networks.footprint import peak_bytes
from focalis.networks.foreign import MONAI
from focalis.networks.nested import Nested
from focalis.networks.network_spec import NetworkSpec
from focalis.networks.transferred import BY_NAME, Transfer, transfer

__all__ = [
    "BY_NAME",
    "MONAI",
    "NETWORKS",
    "REFINED",
    "Convolution",
    "DenseConfig",
    "DenseNetwork",
    "Nested",
    "Network",
    "NetworkSpec",
    "Transfer",
    "all_outputs",
    "build_network",
    "convolutions",
    "dry",
    "is_foreign",
    "needs_data",
    "network_names",
    "network_spec",
    "peak_bytes",
    "split_name",
    "transfer",
]
