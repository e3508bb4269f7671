#!/usr/bin/env python3
"""A TCP server in the manner of the lab, written from the protocol alone.

    lab_tcp_server.py FILE CLIENTS [--wrong] [--dribble]

Prints its port, waits for CLIENTS, releases them together, and prints a line for each: its number,
whether it said Recibido, and the seconds that it says it took. --wrong announces another digest,
--dribble sends the four lines byte by byte.
"""

import hashlib
import os
import socket
import sys
import threading
import time

# A line of one thread is not to be printed into that of another.
PRINTING = threading.Lock()


def attend(connection, seat, path, gate, flags):
    with connection:
        if connection.recv(9, socket.MSG_WAITALL) != b"Preparado":
            return gate.abort()
        gate.wait()
        with open(path, "rb") as file:
            data = file.read()
        digest = hashlib.sha1(data + (b"!" if "--wrong" in flags else b"")).hexdigest()
        head = f"{seat}\n{os.path.basename(path)}\n{len(data)}\n{digest}\n".encode()
        for part in [bytes([byte]) for byte in head] if "--dribble" in flags else [head]:
            connection.sendall(part)
        connection.sendall(data)
        received = connection.recv(8, socket.MSG_WAITALL) == b"Recibido"
        took = ""
        if received:
            connection.sendall(b"%.6f\n" % time.time())
            took = connection.makefile().readline().strip()
        with PRINTING:
            print(seat, "yes" if received else "no", took, flush=True)


def main():
    path, clients, flags = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    gate = threading.Barrier(clients, timeout=60)
    with socket.create_server(("127.0.0.1", 0), backlog=clients) as listener:
        print(listener.getsockname()[1], flush=True)
        threads = []
        for seat in range(1, clients + 1):
            connection, _ = listener.accept()
            connection.settimeout(60)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threads.append(
                threading.Thread(target=attend, args=(connection, seat, path, gate, flags))
            )
            threads[-1].start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
