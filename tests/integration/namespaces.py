# SPDX-License-Identifier: Apache-2.0
"""Machines in one: network namespaces, two joined by a veth pair, more by a bridge. Needs root and iproute2."""

import os
import subprocess

from harness import run

DEVICE = "veth0"  # the same at both ends


class Namespace:
    """A network namespace with one end of the link, until cleanup. It sees no other network, so the
    addresses are free in it whatever this machine has."""

    _count = 0

    def __init__(self, case, v4, v6):
        Namespace._count += 1
        self.name = f"ckpt-{os.getpid()}-{Namespace._count}"
        self.v4, self.v6 = v4, v6
        run("ip", "netns", "add", self.name)
        case.addCleanup(subprocess.run, ["ip", "netns", "del", self.name], check=False)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words):
        return run("ip", "-n", self.name, *words)

    @property
    def under(self):
        """The command that runs another one in here. It becomes that one: same process."""
        return ("ip", "netns", "exec", self.name)

    def address_of(self, port, version=4):
        return f"{self.v4}:{port}" if version == 4 else f"[{self.v6}]:{port}"

    def bring_up(self):
        """Its end, with its addresses; nodad: usable at once."""
        self.ip("address", "add", f"{self.v4}/24", "dev", DEVICE)
        self.ip("address", "add", f"{self.v6}/64", "dev", DEVICE, "nodad")
        self.up()

    def up(self):
        self.ip("link", "set", DEVICE, "up")

    def down(self):
        self.ip("link", "set", DEVICE, "down")

    def limit(self, rate):
        """What it sends leaves no faster, such as "80mbit"; None: as fast as it can."""
        if rate is None:
            self.tc("delete", "dev", DEVICE, "root")
        else:
            self.tc("replace", "dev", DEVICE, "root", "tbf", "rate", rate, "burst", "64k",
                    "latency", "50ms")

    def tc(self, *words):
        run("tc", "-n", self.name, "qdisc", *words)


def linked_pair(case):
    """Two namespaces with a link between them."""
    here = Namespace(case, "10.77.0.1", "fd00:77::1")
    there = Namespace(case, "10.77.0.2", "fd00:77::2")
    here.ip("link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", there.name)
    here.bring_up()
    there.bring_up()
    return here, there


def switched_hosts(case, count):
    """Namespaces that reach each other through a switch, which is a namespace of its own."""
    hosts = [Namespace(case, f"10.78.0.{at}", f"fd00:78::{at}") for at in range(1, count + 1)]
    switch = Namespace(case, "", "")
    switch.ip("link", "add", "br0", "type", "bridge")
    switch.ip("link", "set", "br0", "up")
    for at, host in enumerate(hosts):
        port = f"port{at}"
        switch.ip("link", "add", port, "type", "veth", "peer", "name", DEVICE, "netns", host.name)
        switch.ip("link", "set", port, "master", "br0", "up")
        host.bring_up()
    return hosts
