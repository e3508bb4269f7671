#!/usr/bin/env python3
"""The lab's live client, written from its wire format alone.

    relay_client.py HOST PORT

Reads orders from standard input, one a line, and prints one line for each:

    say TEXT      sends TEXT and a newline on the control connection; prints the answer
    raw HEX       sends these bytes; prints the answer
    port          prints the UDP port where datagrams are taken
    take N        takes N datagrams; prints how many came within 5 s and how many bytes they had
    quiet MS      prints how many datagrams came in that time
    closed        prints yes if the server closes the control connection within 5 s, else no
"""

import socket
import sys
import time


class Control:
    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=10)
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        while b"\n" not in self.buffer:
            data = self.socket.recv(1024)
            if not data:
                return "(closed)"
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode("utf-8")

    def closed(self):
        self.socket.settimeout(5)
        try:
            return self.buffer == b"" and self.socket.recv(1) == b""
        except socket.timeout:
            return False


def take(media, count, limit):
    """Datagrams and bytes that came before `count` were there or `limit` seconds were over."""
    deadline = time.monotonic() + limit
    datagrams = total = 0
    while datagrams < count:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        media.settimeout(left)
        try:
            data = media.recv(65536)
        except socket.timeout:
            break
        datagrams += 1
        total += len(data)
    return datagrams, total


def main():
    control = Control(sys.argv[1], int(sys.argv[2]))
    media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    media.bind(("127.0.0.1", 0))
    for order in sys.stdin:
        word, _, rest = order.strip().partition(" ")
        if word == "say":
            control.send(rest.encode("utf-8") + b"\n")
            answer = control.line()
        elif word == "raw":
            control.send(bytes.fromhex(rest))
            answer = control.line()
        elif word == "port":
            answer = str(media.getsockname()[1])
        elif word == "take":
            answer = "%d %d" % take(media, int(rest), 5)
        elif word == "quiet":
            answer = "%d" % take(media, sys.maxsize, int(rest) / 1000)[0]
        elif word == "closed":
            answer = "yes" if control.closed() else "no"
        else:
            answer = "no such order"
        print(answer, flush=True)


if __name__ == "__main__":
    main()
