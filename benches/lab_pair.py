#!/usr/bin/env python3
"""A server and a client in the manner of the lab, for the bench `rivals`.

    lab_pair.py serve FILE CLIENTS          prints its port, serves one release
    lab_pair.py fetch PORT FOLDER NUMBER    one client, a process each

The wire format is the lab's TCP server's: `Preparado`, four lines, the file, `Recibido`. Both
sides hash the file in steps of 1 KiB, the server once for each client, as the lab's did. What the
lab did not do slowly is not done slowly here: the file goes out with the kernel's sendfile.
"""

import hashlib
import os
import socket
import sys
import threading
import time

STEP = 1024


def digest_of(path):
    hasher = hashlib.sha1()
    with open(path, "rb") as file:
        while part := file.read(STEP):
            hasher.update(part)
    return hasher.hexdigest()


def attend(connection, seat, path, gate):
    with connection:
        assert connection.recv(9, socket.MSG_WAITALL) == b"Preparado"
        gate.wait()
        size = os.path.getsize(path)
        head = (str(seat), os.path.basename(path), str(size), digest_of(path))
        connection.sendall("".join(line + "\n" for line in head).encode())
        with open(path, "rb") as file:
            connection.sendfile(file)
        if connection.recv(8, socket.MSG_WAITALL) == b"Recibido":
            connection.sendall(b"%.6f\n" % time.time())
            connection.recv(64)


def serve(path, clients):
    gate = threading.Barrier(clients)
    with socket.create_server(("127.0.0.1", 0), backlog=clients) as listener:
        print(listener.getsockname()[1], flush=True)
        threads = []
        for seat in range(1, clients + 1):
            connection, _ = listener.accept()
            threads.append(threading.Thread(target=attend, args=(connection, seat, path, gate)))
            threads[-1].start()
    for thread in threads:
        thread.join()


def fetch(port, folder, number):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"Preparado")
        with connection.makefile("rb", 65536) as stream:
            _, _, size, announced = (stream.readline().decode().strip() for _ in range(4))
            start = time.monotonic()
            path, left = os.path.join(folder, "Cliente" + number), int(size)
            with open(path, "wb") as out:
                while left:
                    part = stream.read1(min(left, 65536))
                    assert part, "cut"
                    out.write(part)
                    left -= len(part)
            elapsed = time.monotonic() - start
            assert digest_of(path) == announced, "another digest"
            connection.sendall(b"Recibido")
            stream.readline()
            connection.sendall(b"%.6f\n" % elapsed)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        fetch(int(sys.argv[2]), sys.argv[3], sys.argv[4])
