#!/usr/bin/python3
"""The star of `gatecast study`, built by Mininet 2.3 instead of by gatecast itself.

    sudo /usr/bin/python3 examples/mininet_star.py --hosts 4 --rate 100 -- --clients 1,2,3 --out mn

With --router a router is in the middle, and each host is in a subnet of its own. Host h0 is the server. What follows `--` goes to `gatecast study`, which finds the hosts by their
processes (`--hosts-from`) and does the rest: calibration, runs, bounds, plots. Works with Debian's
packages `mininet` and `bridge-utils`, without Open vSwitch and without a controller.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile

from mininet.link import TCLink
from mininet.net import Mininet
from mininet.node import Node
from mininet.nodelib import LinuxBridge
from mininet.topo import Topo


class Router(Node):
    """A host that forwards."""

    def config(self, **params):
        super().config(**params)
        self.cmd("sysctl -w net.ipv4.ip_forward=1")


class Star(Topo):
    """`hosts` hosts on one Linux bridge or at one router, each link of `rate` Mbit/s both ways."""

    def build(self, hosts=4, rate=100, router=False):
        middle = self.addHost("r0", cls=Router, ip=None) if router else self.addSwitch("s1")
        for number in range(hosts):
            if router:
                gate = f"10.77.{number}.254"
                host = self.addHost(f"h{number}", ip=f"10.77.{number}.1/24", defaultRoute=f"via {gate}")
                self.addLink(host, middle, cls=TCLink, bw=rate, params2={"ip": f"{gate}/24"})
            else:
                host = self.addHost(f"h{number}", ip=f"10.77.0.{number + 1}/16")
                self.addLink(host, middle, cls=TCLink, bw=rate)


def program():
    """gatecast: on the path, or built here."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    built = [os.path.join(root, "target", kind, "gatecast") for kind in ("release", "debug")]
    found = shutil.which("gatecast") or next(filter(os.path.exists, built), None)
    return found or sys.exit("gatecast is not here; build it with: cargo build --release")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=4, help="hosts, the server among them")
    parser.add_argument("--rate", type=int, default=100, help="Mbit/s of each link, each way")
    parser.add_argument("--router", action="store_true", help="a router in the middle, not a bridge")
    parser.add_argument("--gatecast", default=None, help="the program gatecast")
    parser.add_argument("study", nargs="*", help="arguments of `gatecast study`, after --")
    arguments = parser.parse_args()
    if not 2 <= arguments.hosts <= 250:
        parser.error(f"{arguments.hosts} hosts; 2 to 250 are possible")
    if not 1 <= arguments.rate <= 1000:
        parser.error(f"{arguments.rate} Mbit/s; Mininet shapes 1 to 1000")
    if os.geteuid() != 0:
        sys.exit("Mininet takes root")

    gatecast = arguments.gatecast or program()
    net = Mininet(
        topo=Star(hosts=arguments.hosts, rate=arguments.rate, router=arguments.router),
        switch=LinuxBridge,
        controller=None,
        waitConnected=False,
    )
    try:
        net.start()
        with tempfile.NamedTemporaryFile("w", suffix=".hosts") as hosts:
            for number in range(arguments.hosts):
                host = net.get(f"h{number}")
                # Segments as they are on a wire, as in gatecast's own star.
                for end in (host.defaultIntf(), host.defaultIntf().link.intf2):
                    end.node.cmd(f"ethtool -K {end.name} tso off gso off gro off")
                print(host.pid, host.IP(), host.defaultIntf().name, file=hosts)
            hosts.flush()
            command = [gatecast, "study", "--hosts-from", hosts.name]
            command += ["--rate", f"{arguments.rate}mbit", *arguments.study]
            return subprocess.run(command, check=False).returncode
    finally:
        net.stop()


if __name__ == "__main__":
    sys.exit(main())
