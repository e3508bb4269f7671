#!/usr/bin/env python3
"""The TCP client of the lab, written from the description of its wire format alone.

    lab_client.py HOST PORT OUTDIR [FLAG...]

OUTDIR is a folder that exists, or `-` to keep the file in memory only. One line on stdout, its six
columns separated by tabs (a name may hold blanks), `-` for what is not known:

    seat  name  bytes  sha1ok (yes, no)  elapsed (s)  server_start (s since 1970, as sent)

Exit 0 if the digest of what arrived is the digest that was announced, else 1 with a sentence on
stderr; 2 for a wrong command line. The flags make it a client that no server should trust:

    --no-receipt       says nothing after the file, only closes
    --wrong-receipt    says eight other bytes instead of `Recibido`
    --dribble          sends `Preparado` in nine segments, 50 ms apart
    --vanish-at-gate   closes 300 ms after `Preparado`, without waiting for the release
    --die-after BYTES  exits without a word once that many bytes of the file are read
    --stray-byte       sends one byte at the release that nobody asked for, then goes on as usual
    --timeout SECONDS  how long one wait for the server may last (default 60)
"""

import hashlib
import os
import socket
import sys
import time

READY = b"Preparado"
RECEIPT = b"Recibido"
WRONG_RECEIPT = b"Recibida"  # As long as the right one: only the last letter gives it away.
LINE_MAX = 4096  # A line longer than this is no header of the lab's server.
FLAGS = ("--no-receipt", "--wrong-receipt", "--dribble", "--vanish-at-gate", "--stray-byte")
NUMBERS = ("--die-after", "--timeout")


class Failed(Exception):
    """Why there is no good copy."""


class Stream:
    """A connection that yields lines and then raw bytes, in any slicing by the network."""

    def __init__(self, connection):
        self.connection = connection
        self.pending = b""

    def line(self, what):
        while b"\n" not in self.pending:
            if len(self.pending) > LINE_MAX:
                raise Failed("no end of the line with the " + what)
            more = self.connection.recv(4096)
            if not more:
                raise Failed("the server closed before the " + what)
            self.pending += more
        line, self.pending = self.pending.split(b"\n", 1)
        return line.decode("utf-8")

    def some(self, most):
        if self.pending:
            part, self.pending = self.pending[:most], self.pending[most:]
            return part
        return self.connection.recv(min(most, 256 * 1024))


def arguments(words):
    places, options = [], {"--timeout": 60}
    words = iter(words)
    for word in words:
        if word in FLAGS:
            options[word] = True
        elif word in NUMBERS:
            value = next(words, "")
            if not value.isdecimal():
                usage(word + " needs a whole number, not '" + value + "'")
            options[word] = int(value)
        elif word.startswith("--"):
            usage("unknown flag " + word)
        else:
            places.append(word)
    if len(places) != 3 or not places[1].isdecimal():
        usage("wanted HOST PORT OUTDIR")
    return places[0], int(places[1]), places[2], options


def usage(why):
    print(why, file=sys.stderr)
    print(__doc__, file=sys.stderr)
    sys.exit(2)


def say_ready(connection, options):
    if "--dribble" in options:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in READY:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)
    else:
        connection.sendall(READY)


def header(stream, result):
    result["seat"] = stream.line("seat number")
    result["name"] = stream.line("file name")
    size = stream.line("size")
    digest = stream.line("SHA-1")
    if not result["seat"].isdecimal() or not size.isdecimal():
        raise Failed("seat '%s' or size '%s' is no number" % (result["seat"], size))
    if len(digest) != 40 or set(digest) - set("0123456789abcdef"):
        raise Failed("'%s' is no SHA-1" % digest)
    return int(size), digest


def place(outdir, result):
    """Where the file goes; the name comes from outside and must not lead anywhere else."""
    if outdir == "-":
        return None
    name = result["name"]
    if not name or "/" in name or "\0" in name:
        raise Failed("'%s' is no file name" % name)
    return os.path.join(outdir, "Cliente%s-%s" % (result["seat"], name))


def receive(stream, size, out, result, die_after):
    hasher = hashlib.sha1()
    while True:
        if die_after is not None and result["bytes"] >= die_after:
            show(result)
            os._exit(1)  # No shutdown, no receipt: what a killed process leaves behind.
        if result["bytes"] == size:
            return hasher
        most = size - result["bytes"]
        if die_after is not None:
            most = min(most, die_after - result["bytes"])
        part = stream.some(most)
        if not part:
            raise Failed("cut after %d of %d bytes" % (result["bytes"], size))
        result["bytes"] += len(part)
        if out:
            out.write(part)
        else:
            hasher.update(part)


def digest_of(path):
    hasher = hashlib.sha1()
    with open(path, "rb") as file:
        while part := file.read(256 * 1024):
            hasher.update(part)
    return hasher


def take_part(connection, outdir, options, result):
    stream = Stream(connection)
    say_ready(connection, options)
    if "--vanish-at-gate" in options:
        time.sleep(0.3)
        raise Failed("vanished at the gate, as told")
    size, announced = header(stream, result)
    start = time.monotonic()
    if "--stray-byte" in options:
        connection.sendall(b"?")
    path = place(outdir, result)
    out = open(path, "wb") if path else None
    try:
        hasher = receive(stream, size, out, result, options.get("--die-after"))
    finally:
        if out:
            out.close()
    elapsed = time.monotonic() - start
    result["elapsed"] = "%.6f" % elapsed
    if path:
        hasher = digest_of(path)  # What is on the disk, not what passed by.
    if hasher.hexdigest() != announced:
        result["sha1ok"] = "no"
        raise Failed("SHA-1 is %s, announced was %s" % (hasher.hexdigest(), announced))
    result["sha1ok"] = "yes"
    if "--no-receipt" not in options:
        give_receipt(connection, stream, options, result)


def give_receipt(connection, stream, options, result):
    """The copy is proven by now, so a server that hangs up here does not make it worse."""
    try:
        connection.sendall(WRONG_RECEIPT if "--wrong-receipt" in options else RECEIPT)
        result["server_start"] = stream.line("server's start time")
        connection.sendall(("%s\n" % result["elapsed"]).encode())
    except (Failed, OSError, UnicodeDecodeError) as why:
        print("lab_client.py: after the receipt: %s" % why, file=sys.stderr)


def show(result):
    columns = ("seat", "name", "bytes", "sha1ok", "elapsed", "server_start")
    print("\t".join(str(result[column]) for column in columns), flush=True)


def main():
    host, port, outdir, options = arguments(sys.argv[1:])
    result = {
        "seat": "-",
        "name": "-",
        "bytes": 0,
        "sha1ok": "no",
        "elapsed": "-",
        "server_start": "-",
    }
    try:
        with socket.create_connection((host, port), options["--timeout"]) as connection:
            take_part(connection, outdir, options, result)
    except (Failed, OSError, UnicodeDecodeError) as why:
        print("lab_client.py: %s" % why, file=sys.stderr)
    show(result)
    sys.exit(0 if result["sha1ok"] == "yes" else 1)


main()
