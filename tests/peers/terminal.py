#!/usr/bin/env python3
"""Runs a program on a terminal of its own, and types there.

    terminal.py [--background] [--pipe-output] [--columns=80] PROGRAM ARGUMENT...

Prints what appears on the terminal, each redrawn line as a line. Reads orders from standard input:

    key TEXT      types TEXT
    line TEXT     types TEXT and Enter
    wait          waits for the program to end; prints "ended CODE" and whether the terminal is as
                  it was before: "terminal kept" or "terminal changed"
    cpu [PID]     prints "cpu TICKS", the processor time that the program has used
    state [PID]   prints "state X", the process state as the system names it

The terminal has 120 columns unless --columns says otherwise.
With --background the program is a job in the background of that terminal; with --pipe-output its
standard output is a pipe.
"""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading


def show(source):
    # A read may end in the middle of a line. What has no end yet is printed once nothing more comes
    # for a while, and is kept, so that its line is printed whole when the rest comes.
    tail = b""
    while True:
        try:
            if tail and not select.select([source], [], [], 0.2)[0]:
                print_line(tail)
            data = os.read(source, 4096)
        except OSError:
            data = b""
        if not data:
            print_line(tail)
            return
        *lines, tail = re.split(rb"\r|\n|\x1b\[2K", tail + data)
        for line in lines:
            print_line(line)


def print_line(data):
    line = data.decode("utf-8", "replace").strip()
    if line:
        print(line, flush=True)


def main():
    words = sys.argv[1:]
    columns = 120
    options = set()
    while words[0] in ("--background", "--pipe-output") or words[0].startswith("--columns="):
        option = words.pop(0)
        options.add(option)
        if option.startswith("--columns="):
            columns = int(option.partition("=")[2])
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    before = termios.tcgetattr(slave)

    def own_terminal():
        # What a shell does: the terminal is this session's, and its foreground is one job.
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    # The shell stands between, so that a job in the background is possible at all.
    if "--background" in options:
        words = ["bash", "-mc", '"$@" <&0 & echo "job $!"; wait $!', "shell"] + words
    piped = "--pipe-output" in options
    program = subprocess.Popen(
        words,
        stdin=slave,
        stdout=subprocess.PIPE if piped else slave,
        stderr=slave,
        preexec_fn=own_terminal,
        # This terminal's kind, whatever the tests themselves run on.
        env={**os.environ, "TERM": "xterm"},
    )
    screen = threading.Thread(target=show, args=(master,), daemon=True)
    screen.start()
    if piped:
        threading.Thread(target=show, args=(program.stdout.fileno(),), daemon=True).start()
    for order in sys.stdin:
        word, _, rest = order.rstrip("\n").partition(" ")
        if word == "key":
            os.write(master, rest.encode("utf-8"))
        elif word == "line":
            os.write(master, rest.encode("utf-8") + b"\r")
        elif word == "wait":
            code = program.wait()
            kept = termios.tcgetattr(slave) == before
            # With its last writer gone the terminal ends, so "ended" comes after all it showed.
            os.close(slave)
            screen.join(5)
            print("ended %d terminal %s" % (code, "kept" if kept else "changed"), flush=True)
        elif word in ("cpu", "state"):
            pid = int(rest) if rest else program.pid
            with open("/proc/%d/stat" % pid) as stat:
                fields = stat.read().rpartition(")")[2].split()
            answer = int(fields[11]) + int(fields[12]) if word == "cpu" else fields[0]
            print("%s %s" % (word, answer), flush=True)
    program.kill()
    program.wait()


if __name__ == "__main__":
    main()
