#!/usr/bin/env python3
"""A client of the lab's UDP protocol, written from its description alone.

lab_udp_client.py HOST PORT LIST
lab_udp_client.py HOST PORT CONFIG FILE N
lab_udp_client.py HOST PORT RAW TEXT
lab_udp_client.py HOST PORT TRANSFER FOLDER N

Prints the server's answer, or for TRANSFER one line for each sub-client: its bytes.
"""
import os
import socket
import sys
import threading


def ask(server, text):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(text.encode(), server)
        return sock.recvfrom(65507)[0].decode()


def transfer(server, path, sizes, place):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)  # The protocol's end: five seconds of silence.
        sock.sendto(b"TRANSFER", server)
        parts = []
        try:
            while True:
                parts.append(sock.recvfrom(65507)[0])
        except socket.timeout:
            pass
        data = b"".join(parts)
        with open(path, "wb") as file:
            file.write(data)
        sizes[place] = len(data)
        sock.sendto(b"DISCONNECT", server)


def main():
    server, word = (sys.argv[1], int(sys.argv[2])), sys.argv[3]
    if word == "LIST":
        print(ask(server, "LIST"))
    elif word == "CONFIG":
        print(ask(server, "!CONFIG :%s :%s" % (sys.argv[4], sys.argv[5])))
    elif word == "RAW":
        try:
            print(ask(server, sys.argv[4]))
        except socket.timeout:
            print("silence")
    else:
        folder, count = sys.argv[4], int(sys.argv[5])
        sizes = [0] * count
        paths = [os.path.join(folder, "C%d" % (n + 1)) for n in range(count)]
        threads = [
            threading.Thread(target=transfer, args=(server, paths[n], sizes, n))
            for n in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for size in sizes:
            print(size)


main()
