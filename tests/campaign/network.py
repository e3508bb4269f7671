"""A link between two network namespaces, with every packet in the hands of this process.

    python3 network.py SEED

It makes two namespaces without names, one for the server and one for the clients, and a tun device in
each, and carries packets from one to the other. It says `ready PID FD FD` when they are there: the
namespaces are /proc/PID/fd/FD. Then it takes commands, a line each, and answers `ok`:

    fault LOSS DUPLICATES REORDERED WHAT    chances from 0 to 1, of `udp` packets or of `all`
    hole | mend                             no packet passes | all pass again
    down | up                               the clients' interface is set down | up

At the end of its input it ends, and the namespaces end with their last process.
"""
import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
UDP = 17
SERVER, CLIENTS = "10.77.0.1", "10.77.0.2"
# How long a packet is held back that others are to overtake.
HELD_S = (0.001, 0.02)


def unshare(flags):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def ip(*lines):
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)


def end_of_link(device, address):
    """A new namespace with a tun device. Returns the device and the namespace."""
    unshare(CLONE_NEWNET)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    ip("link set dev lo up", f"addr add {address}/24 dev {device}", f"link set dev {device} txqueuelen 5000",
       f"link set dev {device} up", f"route add 224.0.0.0/4 dev {device}")
    # Nobody is let in before the address can be used.
    deadline = time.monotonic() + 5
    while True:
        try:
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind((address, 0))
            return tun, os.open("/proc/self/ns/net", os.O_RDONLY)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class Link:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.loss = self.duplicates = self.reordered = 0.0
        self.all = self.hole = False
        self.held = []  # (when, number, device, packet)
        self.number = 0

    def take(self, packet, to):
        if self.hole:
            return
        if not self.all and (len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] != UDP):
            return self.put(packet, to)
        if self.random.random() < self.loss:
            return
        for _ in range(1 + (self.random.random() < self.duplicates)):
            if self.random.random() < self.reordered:
                self.number += 1
                when = time.monotonic() + self.random.uniform(*HELD_S)
                heapq.heappush(self.held, (when, self.number, to, packet))
            else:
                self.put(packet, to)

    @staticmethod
    def put(packet, to):
        try:
            os.write(to, packet)
        except OSError:
            pass  # The interface is down, or its queue is full: the packet is lost.

    def due(self):
        """Sends what was held long enough. Returns the seconds until there is more, if there is."""
        now = time.monotonic()
        while self.held and self.held[0][0] <= now:
            _, _, to, packet = heapq.heappop(self.held)
            self.put(packet, to)
        return self.held[0][0] - now if self.held else None

    def command(self, words):
        match words:
            case ["fault", loss, duplicates, reordered, what]:
                self.loss, self.duplicates, self.reordered = float(loss), float(duplicates), float(reordered)
                self.all = what == "all"
            case ["hole"]:
                self.hole = True
            case ["mend"]:
                self.hole = False
            case ["down"]:
                ip("link set dev clients down")
            case ["up"]:
                ip("link set dev clients up", "route replace 224.0.0.0/4 dev clients")
            case _:
                raise SystemExit(f"no command: {words}")


def main():
    link = Link(int(sys.argv[1]))
    near, server = end_of_link("server", SERVER)
    far, clients = end_of_link("clients", CLIENTS)
    print("ready", os.getpid(), server, clients, flush=True)
    other = {near: far, far: near}
    read = b""
    while True:
        wait = link.due()
        for fd in select.select([0, near, far], [], [], wait)[0]:
            if fd == 0:
                read += (got := os.read(0, 4096))
                if not got:
                    return
                while b"\n" in read:
                    line, read = read.split(b"\n", 1)
                    link.command(line.decode().split())
                    print("ok", flush=True)
                continue
            try:
                for _ in range(64):
                    link.take(os.read(fd, 65536), other[fd])
            except OSError:
                pass  # Nothing more now, or the interface is down.


if __name__ == "__main__":
    main()
