#!/usr/bin/env python3
"""Shows every message that the codecs' tests make to tshark with src/proto/gatecast.lua, and compares each field
with what is read here. Messages come on standard input, in lines that those tests print:

    cargo test --lib proto:: -- --nocapture | python3 tests/dissector/check.py
"""

import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import urllib.parse
import xml.etree.ElementTree

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "src/proto/gatecast.lua"
OPENING = b"GATECAST/1 LIST\n"


def ip(protocol, inner):
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(inner), 7, 0x4000, 64, protocol, 0)
    return bytes(12) + b"\x08\x00" + head + b"\x0a\x4d\0\x01" + b"\x0a\x4d\0\x02" + inner


def tcp(port, seq, payload, flags=24):
    return ip(6, struct.pack(">HHIIBBHHH", port, 8080, seq, 1, 0x50, flags, 1000, 0, 0) + payload)


def pcap(frames):
    """A file in the older format, which takes a few lines to write."""
    out = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
    for number, frame in enumerate(frames):
        out += struct.pack("<IIII", number, 0, len(frame), len(frame)) + frame
    return out


def shown(text):
    """Text as tshark's PDML shows it: an XML reader turns the line ends in an attribute into blanks."""
    return "".join(" " if one in "\n\r\t" else f"\\x{ord(one):02x}" if ord(one) < 32 else one for one in text)


def of_line(text):
    """The word and the fields of a line."""
    parts = text.split(" ")
    if re.fullmatch(r"GATECAST/\d+", parts[0]):
        parts = parts[1:]
    found = [("gatecast.word", parts[0])]
    for part in parts[1:]:
        name, _, value = part.partition("=")
        found.append((f"gatecast.{name}", shown(urllib.parse.unquote(value))))
    return sorted(found)


def of_datagram(data):
    """The fields of a datagram."""
    kind, stream, number, sent = data[3], *struct.unpack_from(">III", data, 4)
    found = [("kind", kind), ("stream", f"0x{stream:08x}"), ("number", number), ("sent_us", sent)]
    if kind == 1:
        block, flags, length = struct.unpack_from(">IHH", data, 16)
        found += [("block", block), ("again", flags), ("length", length)]
    elif kind == 2:
        count, _, length, block = struct.unpack_from(">BBHI", data, 16)
        found += [("count", count), ("length", length), ("block", block)]
        at = 24
        for _ in range(count - 1):
            gap, scale = 0, 1
            while True:
                gap, scale, at = gap + (data[at] & 127) * scale, scale << 7, at + 1
                if data[at - 1] < 128:
                    break
            block += gap + 1
            found.append(("block", block))
    else:
        found += list(zip(("upto", "round"), struct.unpack_from(">II", data, 16)))
    return sorted((f"gatecast_udp.{name}", str(value)) for name, value in found)


def main():
    lines, packets = {}, {}
    for line in sys.stdin:
        if match := re.search(r"wire-tcp (.*)$", line):
            lines[match[1]] = None
        elif match := re.search(r"wire-udp ([0-9a-f]+)$", line):
            packets[bytes.fromhex(match[1])] = None
    # A datagram that was cut is damaged.
    whole = [data for data in packets if len(data) < 1472]
    frames, wanted = [], []
    for number, line in enumerate(lines):
        port = 10_000 + number
        frames += [tcp(port, 0, b"", 2), tcp(port, 1, OPENING), tcp(port, 1 + len(OPENING), line.encode() + b"\n")]
        wanted += [None, None, (line[:100], of_line(line), False)]
    for data in whole:
        for cut in (0, 1):
            part = data[:len(data) - cut]
            frames.append(ip(17, struct.pack(">HHHH", 40_000, 40_001, 8 + len(part), 0) + part))
            wanted.append((part.hex()[:100], None if cut else of_datagram(data), bool(cut)))
    words = {dict(of_line(line))["gatecast.word"] for line in lines}
    if len(lines) < 30 or len(whole) < 3 or len(words) < 18:
        sys.exit(f"only {len(lines)} lines, {len(whole)} datagrams and {len(words)} words came")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "messages.pcap"
        path.write_bytes(pcap(frames))
        command = [shutil.which("tshark") or "tshark", "-o", "tcp.try_heuristic_first:TRUE", "-X", f"lua_script:{SCRIPT}",
                   "-r", str(path), "-T", "pdml"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if ended.returncode or "Lua" in ended.stderr:
        sys.exit(f"tshark: {ended.stderr}")
    failed, fields = [], 0
    for packet, want in zip(xml.etree.ElementTree.fromstring(ended.stdout).iter("packet"), wanted, strict=True):
        if want is None:
            continue
        what, values, is_damaged = want
        got = [(one.get("name"), one.get("show")) for one in packet.iter("field")
               if one.get("name", "").startswith(("gatecast.", "gatecast_udp."))]
        damaged = any(name == "gatecast_udp.damaged" for name, _ in got)
        got = sorted(pair for pair in got if pair[0] != "gatecast_udp.damaged")
        fields += len(got)
        if damaged != is_damaged or values is not None and got != values:
            failed.append(f"{what}\n  wanted {values}, damaged {is_damaged}\n  shown  {got}, damaged {damaged}")
    print(f"{len(lines)} lines of {len(words)} words and {len(whole)} datagrams: {fields} fields, {len(failed)} wrong")
    sys.exit("\n".join(failed) or None)


if __name__ == "__main__":
    main()
