"""The process group of one trial's workers, which may be on several machines.

Gloo and NCCL listen on the interface that the machine's own name resolves to, often loopback, where workers on other
machines cannot reach them. So each worker is told to use the one that carries the address under which Ray knows its
machine, before the group is formed. A name that the user has set stays.
"""

import array
import fcntl
import os
import socket
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig

SIOCGIFADDR = 0x8915  # linux/sockios.h
IFREQ_BYTES, ADDRESS = 40, slice(20, 24)  # name in 16 bytes, family, port, IPv4 address; netdevice(7)
VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@dataclass
class GroupConfig(TorchConfig):
    """Ray Train's own, with the interface chosen first."""

    @property
    def backend_cls(self) -> Any:
        """What Ray Train calls when the workers are there."""
        base: Any = TorchConfig().backend_cls

        class OnItsInterface(base):
            def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
                worker_group.execute(use_own_interface)
                super().on_start(worker_group, backend_config)

        return OnItsInterface


def use_own_interface() -> None:
    """Have this process's group speak over the interface of this machine's address in the cluster."""
    interface = interface_of(ray.util.get_node_ip_address())
    if interface is not None:
        for name in VARIABLES:
            os.environ.setdefault(name, interface)


def interface_of(address: str) -> str | None:
    """The name of the interface that carries an IPv4 address; None where no interface does (or not on Linux)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = array.array("B", name.encode().ljust(IFREQ_BYTES, b"\0"))
            try:
                fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request, True)
            except OSError:  # it has none
                continue
            if socket.inet_ntoa(request.tobytes()[ADDRESS]) == address:
                return name
    return None
