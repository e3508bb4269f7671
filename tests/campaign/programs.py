"""The programs of a run, and the network between them."""
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What every process of a run has in its environment, by which it is found when it is left.
MARK = "GATECAST_CAMPAIGN"


class Void(Exception):
    """The run could not be made, for a reason outside the programs."""


class Stopped(Exception):
    """The whole campaign is to end."""


def content(seed, name, size):
    """The bytes of a file, which only the seed and the name decide."""
    return random.Random(f"{seed} {name}").randbytes(size)


def sha1(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


class Process:
    """A program of the run, its output in files."""

    def __init__(self, run, name, kind, command, round_, environment=None, prefix=()):
        self.name, self.kind, self.round = name, kind, round_
        self.sent, self.hang, self.stopped = [], False, False
        self.output = run.tools / f"{name}.{round_}.out"
        self.errors = run.tools / f"{name}.{round_}.err"
        environment = os.environ | {MARK: run.mark, "TMPDIR": str(run.tmp), "HOME": str(run.work)} | (environment or {})
        environment.pop("GATECAST_LOG", None)
        with open(self.output, "wb") as out, open(self.errors, "wb") as err:
            self.popen = subprocess.Popen([*prefix, *map(str, command)], cwd=run.work, stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=err, env=environment, start_new_session=True)
        self.began = time.monotonic()
        run.processes.append(self)

    def send(self, number):
        if self.popen.poll() is None:
            self.popen.send_signal(number)
            self.sent.append(number.name)

    def ended(self):
        return self.popen.poll() is not None

    def end(self):
        """Ends it whatever it does; for cleaning up."""
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()

    def outcome(self):
        code = self.popen.returncode
        return {
            "name": self.name, "kind": self.kind, "round": self.round, "sent": self.sent, "hang": self.hang,
            "code": code if code is None or code >= 0 else None,
            "signal": signal.Signals(-code).name if code is not None and code < 0 else None,
            "stdout": self.output.read_text(errors="replace"), "stderr": self.errors.read_text(errors="replace"),
        }


class Network:
    """The forwarder of network.py, and the ways into its namespaces."""

    def __init__(self, run, seed):
        self.errors = run.tools / "network.err"
        with open(self.errors, "wb") as errors:
            self.popen = subprocess.Popen([sys.executable, HERE / "network.py", str(seed)], stdin=subprocess.PIPE,
                                          stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
                                          env=os.environ | {MARK: run.mark})
        words = self.popen.stdout.readline().split()
        if words[:1] != ["ready"]:
            self.popen.kill()
            self.popen.wait()
            raise Void(f"no namespaces or no tun devices here: {self.why()}")
        spaces = [f"/proc/{words[1]}/fd/{fd}" for fd in words[2:]]
        self.server, self.clients = (["nsenter", f"--net={space}"] for space in spaces)
        # While this process has them open, no other namespaces get their numbers.
        self.spaces = [os.open(space, os.O_RDONLY) for space in spaces]
        self.inodes = [os.fstat(space).st_ino for space in self.spaces]

    def tell(self, *words):
        try:
            self.popen.stdin.write(" ".join(map(str, words)) + "\n")
            self.popen.stdin.flush()
            if self.popen.stdout.readline() == "ok\n":
                return
        except OSError:
            pass
        raise Void(f"the forwarder ended: {self.why()}")

    def why(self):
        return " ".join(self.errors.read_text(errors="replace").split())[-300:]

    def end(self):
        self.popen.stdin.close()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.popen.stdout.close()

    def forget(self):
        for space in self.spaces:
            os.close(space)
