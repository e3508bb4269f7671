"""Reads pcapng files, and Ethernet frames of IPv4 with TCP or UDP in them. Standard library only.

The format is that of draft-ietf-opsawg-pcapng: blocks of a type and a length, which stands at both ends.
"""

import dataclasses
import struct

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
ETHERNET = 1
BLOCK_MAX = 16 << 20


class CaptureError(Exception):
    """A file that is no whole capture."""


@dataclasses.dataclass
class Frame:
    """A packet as it was captured: nanoseconds since 1970, its length on the wire, what was kept."""

    time: int
    length: int
    data: bytes


@dataclasses.dataclass
class Segment:
    """A TCP segment or a UDP datagram. `length` is that of its payload on the wire."""

    time: int
    protocol: str
    source: tuple
    to: tuple
    payload: bytes
    length: int
    seq: int = 0
    syn: bool = False
    fin: bool = False


def options(data, order):
    """The options of a block, by their numbers."""
    found, at = {}, 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from(order + "HH", data, at)
        if code == 0:
            break
        if at + 4 + length > len(data):
            raise CaptureError(f"option {code} is longer than its block")
        found[code] = data[at + 4:at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
    return found


def read(data):
    """The frames of a file. A file that does not end with its statistics, or lacks packets, is an error."""
    if len(data) < 12 or struct.unpack_from("<I", data)[0] != SECTION:
        raise CaptureError("it does not begin as pcapng does")
    order, at, frames, units, received = "<", 0, [], [], None
    while at < len(data):
        if at + 12 > len(data):
            raise CaptureError(f"a block is cut at byte {at}")
        kind = struct.unpack_from(order + "I", data, at)[0]
        if kind == SECTION:
            magic = data[at + 8:at + 12]
            order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(magic)
            if order is None:
                raise CaptureError(f"unknown byte order {magic.hex()}")
            units = []
        length = struct.unpack_from(order + "I", data, at + 4)[0]
        if length % 4 or not 12 <= length <= BLOCK_MAX or at + length > len(data):
            raise CaptureError(f"a block of {length} bytes at byte {at} of {len(data)}")
        if struct.unpack_from(order + "I", data, at + length - 4)[0] != length:
            raise CaptureError(f"the two lengths of the block at byte {at} differ")
        body = data[at + 8:at + length - 4]
        if kind == INTERFACE:
            if len(body) < 8:
                raise CaptureError("a short block of an interface")
            link = struct.unpack_from(order + "H", body)[0]
            if link != ETHERNET:
                raise CaptureError(f"link type {link}, not Ethernet")
            unit = options(body[8:], order).get(9, b"\x06")[0]
            units.append(2 ** (unit & 127) if unit & 128 else 10 ** unit)
        elif kind == PACKET:
            if len(body) < 20:
                raise CaptureError("a short block of a packet")
            number, high, low, kept, whole = struct.unpack_from(order + "5I", body)
            if number >= len(units) or kept > len(body) - 20 or kept > whole:
                raise CaptureError(f"a packet of {kept} of {whole} bytes in a block of {length}")
            time = ((high << 32 | low) * 1_000_000_000 + units[number] // 2) // units[number]
            frames.append(Frame(time, whole, body[20:20 + kept]))
        elif kind == STATISTICS:
            said = options(body[12:], order)
            if 4 in said and len(said[4]) == 8:
                received = struct.unpack(order + "Q", said[4])[0]
            if any(len(said.get(code, b"")) == 8 and any(said[code]) for code in (5, 7)):
                raise CaptureError("packets were lost before they were in it")
        at += length
    if received is None:
        raise CaptureError("it has no statistics at its end")
    if received != len(frames):
        raise CaptureError(f"{len(frames)} packets of {received} are in it")
    return frames


def segment(frame):
    """The TCP segment or UDP datagram in a frame; `None` for anything else."""
    data = frame.data
    if len(data) < 34 or data[12:14] != b"\x08\x00" or data[14] >> 4 != 4:
        return None
    head = (data[14] & 15) * 4
    total, fragment = struct.unpack_from(">H2xH", data, 16)
    protocol, at = data[23], 14 + head
    if fragment & 0x3FFF:
        raise CaptureError("a fragment")
    if head < 20 or total < head or total + 14 > frame.length:
        raise CaptureError(f"an IPv4 packet of {total} bytes in a frame of {frame.length}")
    source, to = (".".join(map(str, data[place:place + 4])) for place in (26, 30))
    if protocol == 17 and len(data) >= at + 8:
        ports = struct.unpack_from(">HHH", data, at)
        if ports[2] != total - head:
            raise CaptureError(f"a datagram of {ports[2]} bytes in a packet with room for {total - head}")
        payload = data[at + 8:14 + total]
        return Segment(frame.time, "udp", (source, ports[0]), (to, ports[1]), payload, total - head - 8)
    if protocol == 6 and len(data) >= at + 20:
        ports = struct.unpack_from(">HHI", data, at)
        own, flags = (data[at + 12] >> 4) * 4, data[at + 13]
        if own < 20 or own > total - head:
            raise CaptureError(f"a TCP header of {own} bytes in a packet of {total}")
        payload = data[at + own:14 + total]
        return Segment(frame.time, "tcp", (source, ports[0]), (to, ports[1]), payload, total - head - own,
                       ports[2], bool(flags & 2), bool(flags & 1))
    return None


class Stream:
    """One direction of a TCP connection, put together from one host's capture."""

    def __init__(self):
        self.start = None
        self.waiting = {}
        self.data = bytearray()
        # (bytes that were there, when), rising.
        self.grown = []
        self.ended = None
        self.again = 0

    def add(self, segment):
        """Takes in one segment, in the order of the capture."""
        if segment.syn:
            self.start = (segment.seq + 1) & 0xFFFFFFFF
            return
        if self.start is None and not segment.length:
            return  # A refusal.
        if self.start is None:
            raise CaptureError("a connection that began before the capture")
        if len(segment.payload) != segment.length:
            raise CaptureError("a payload was cut: the snap length is too small")
        at = len(self.data) + (((segment.seq - self.start - len(self.data)) + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
        if segment.fin and self.ended is None:
            self.ended = segment.time
        if segment.length and at + segment.length <= len(self.data):
            self.again += segment.length
        elif segment.length:
            old = self.waiting.get(at, b"")
            if len(segment.payload) > len(old):
                self.waiting[at] = segment.payload
        before = len(self.data)
        while True:
            ready = [place for place in self.waiting if place <= len(self.data)]
            if not ready:
                break
            for place in sorted(ready):
                self.data += self.waiting.pop(place)[len(self.data) - place:]
        if len(self.data) > before:
            self.grown.append((len(self.data), segment.time))

    def when(self, count):
        """When so many bytes were there."""
        return next(time for size, time in self.grown if size >= count)


def streams(segments):
    """The TCP streams of a capture, by (source, to). A port that is used again begins a new one."""
    found, done = {}, []
    for one in segments:
        if one.protocol != "tcp":
            continue
        key = (one.source, one.to)
        known = found.get(key)
        if known is not None and one.syn and known.start not in (None, (one.seq + 1) & 0xFFFFFFFF):
            done.append((key, found.pop(key)))
        found.setdefault(key, Stream()).add(one)
    return done + list(found.items())


def load(path):
    """The segments of a capture."""
    with open(path, "rb") as file:
        frames = read(file.read())
    return [one for one in map(segment, frames) if one is not None]
