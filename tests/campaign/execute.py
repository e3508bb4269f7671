"""Carries a plan out with the real programs, and says what came of it. It judges nothing."""
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from programs import MARK, Network, Process, Stopped, Void, content, sha1

FAKETIME = next((path for path in (f"/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"
                                   for machine in ("x86_64", "aarch64")) if os.path.exists(path)), None)
SERVER_IN_NETWORK = "10.77.0.1"

# Absolute limits, in seconds; reaching one of the first three is a hang. The longest wait that the
# programs promise is a minute, for a swarm's client that goes on serving a peer that fell silent.
ENDS_S = 150  # A client waits 120 s for a server that digests what it offers.
LISTENS_S = 30
QUIET_S = 30
# A fault waits so long for a part to grow.
MOMENT_S = 3
POLL_S = 0.003
# What a server keeps of a torrent.
KEPT = {"fd": 2, "task": 1}
# Everything of a tmpfs is counted in pages.
PAGE = 4096


class Run:
    def __init__(self, plan, program, folder, stopping):
        self.plan, self.program, self.folder, self.stopping = plan, program, Path(folder), stopping
        self.fault = plan["fault"]
        self.mark = f"{os.getpid()}-{plan['seed']}"
        self.work, self.tools, self.tmp = (self.folder / name for name in ("work", "tools", "tmp"))
        self.processes, self.mounts, self.before, self.network = [], [], {}, None
        self.address = None
        self.quiet = self.after = None
        self.notes, self.trees = [], []

    # --- what is there before --------------------------------------------------------------------

    def prepare(self):
        for folder in (self.work, self.tools, self.tmp, self.work / "src"):
            folder.mkdir(parents=True)
        for name, size in self.plan["files"].items():
            (self.work / "src" / name).write_bytes(content(self.plan["seed"], name, size))
        for name in ("key", "other"):
            (self.work / name).write_bytes(content(self.plan["seed"], name, 32))
            (self.work / name).chmod(0o600)
        for process in self.plan["processes"]:
            (self.work / process["out"]).mkdir(exist_ok=True)
        # A small disk first: what is there before must not be hidden below it.
        if self.fault["kind"] == "disk full":
            outs = {process["out"] for process in self.plan["processes"] if process["name"] in self.fault["targets"]}
            most = max(self.plan["files"].values())
            for out in sorted(outs):
                self.mount(self.work / out, int(most * self.fault["room"]) if not self.fault["filled"] else 64_000_000)
        for process in self.plan["processes"]:
            if process["there"] or process["wrong"] == "taken":
                there = content(self.plan["seed"], process["file"] if process["there"] == "same" else "another",
                                self.plan["files"][process["file"]] if process["there"] == "same" else 5000)
                path = self.work / process["out"] / process["file"]
                try:
                    path.write_bytes(there)
                except OSError:
                    path.unlink(missing_ok=True)  # That disk has no room for it.
                    continue
                self.before[str(path.relative_to(self.work))] = sha1(path)
        if self.plan["network"]:
            self.network = Network(self, self.plan["seed"])
        if self.fault["kind"] == "log disk full":
            logs = self.work / self.plan["server"]["log"]
            logs.mkdir()
            self.mount(logs, 8 * PAGE)
            (logs / "hog").write_bytes(bytes((8 - self.fault["pages"]) * PAGE))
        if self.fault["kind"] == "clock":
            (self.tools / "clock").write_text("+0\n")

    def mount(self, folder, size):
        size = max(size, PAGE)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
        if done.returncode:
            raise Void("no right to mount a tmpfs")
        self.mounts.append(folder)

    # --- the programs ----------------------------------------------------------------------------

    def wrapped(self, name, is_server, round_):
        """The environment and the words before a program, by which a fault gets into it."""
        environment, prefix = {}, []
        if self.network:
            prefix += self.network.server if is_server else self.network.clients
        kind = self.fault["kind"]
        at = self.fault.get("at")
        hit = name in self.fault["targets"] or is_server and kind.endswith(" server")
        hit = hit or at == "both" or at == ("server" if is_server else "clients")
        if round_ > 1 or not hit:
            return environment, prefix
        # The loader of curl's many libraries does not go on after EINTR.
        is_curl = any(process["name"] == name and process["kind"] == "curl" for process in self.plan["processes"])
        if kind == "interrupted calls" and is_curl:
            return environment, prefix
        if kind in ("call client", "call server", "interrupted calls"):
            calls, fault = self.fault["call"], f"error={self.fault['error']}:when={self.fault['when']}"
            prefix += ["strace", "-D", "-f", "-qq", "-e", f"trace={calls}", "-e", f"inject={calls}:{fault}", "-o",
                       str(self.tools / f"{name}.strace")]
        if kind.startswith("descriptors "):
            prefix += ["prlimit", f"--nofile={self.fault['limit']}:{self.fault['limit']}"]
        if kind == "clock":
            if not FAKETIME:
                raise Void("libfaketime is not installed")
            environment = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(self.tools / "clock"), "FAKETIME_NO_CACHE": "1",
                           "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
        return environment, prefix

    def serve(self, round_, listen):
        plan, server = self.plan, self.plan["server"]
        command = [self.program, "serve", "src" if plan["folder"] else "src/f.bin", "--listen", listen,
                   "--log-dir", server["log"] if round_ == 1 else f"{server['log']}{round_}", "--max-wait", f"{server['max_wait']}s"]
        command += server["args"]
        if plan["folder"] and not all(process["names_file"] for process in plan["processes"]):
            command += ["--file", "f.bin"]
        for option in ("clients", "quorum"):
            if server[option]:
                command += [f"--{option}", server[option]]
        if server["says_way"]:
            command += ["--via", plan["way"]]
        if server["stall"]:
            command += ["--stall-limit", f"{server['stall']}s"]
        if server["one_off"]:
            command += ["--one-off"]
        if plan["key"]:
            command += ["--key", "key"]
        environment, prefix = self.wrapped("server", True, round_)
        process = Process(self, "server", "server", command, round_, environment, prefix)
        # A server whose words do not get out cannot say where it listens.
        mute = self.fault.get("call") == "write" and round_ == 1
        self.wait(2 if mute else LISTENS_S, lambda: process.ended() or self.listening(process), None if mute else process)
        self.address = self.listening(process) or self.address
        return process

    @staticmethod
    def listening(process):
        # Where writes fail, a part of the line may be lost.
        found = re.search(r"^listening on (\S+:\d+)\n", process.errors.read_text(errors="replace"), re.MULTILINE)
        return found and found[1]

    def fetch(self, process, round_):
        plan, file = self.plan, process["file"]
        name = process["name"]
        environment, prefix = self.wrapped(name, False, round_)
        group = sum(other["clients"] for other in plan["processes"] if not other["wrong"] and other["file"] == file)
        if process["kind"] == "curl":
            clients = "" if plan["server"]["clients"] else f"={group}"
            receipt = "&receipt" if process.get("receipt") else ""
            url = f"http://{self.address}/files/{file}?gate{clients}{receipt}&name={name}"
            command = ["curl", "-sS", "-f", "--max-time", "60", "-D", self.tools / f"{name}.{round_}.head",
                       "-o", f"{process['out']}/{file}", url]
            return Process(self, name, "curl", command, round_, environment, prefix)
        words = {"right": sha1(self.work / "src" / file), "wrong": "0" * 40}
        command = [self.program, "fetch", self.address, *([file] if process["names_file"] else []), "--out", process["out"],
                   "--name", name, *(words.get(word, word) for word in process["args"])]
        if process["clients"] > 1:
            command += ["--clients", process["clients"]]
        if not plan["server"]["clients"] and group:
            command += ["--group", group]
        if not plan["server"]["says_way"]:
            command += ["--via", plan["way"]]
        if plan["key"] and process["wrong"] != "no key":
            command += ["--key", "other" if process["wrong"] == "key" else "key"]
        if plan["server"]["stall"]:
            command += ["--stall-limit", f"{plan['server']['stall']}s"]
        if self.fault["kind"] == "restart server":
            command += ["--retry", "10s"]
        if round_ > 1:
            command += ["--resume"]
        return Process(self, name, "client", command, round_, environment, prefix)

    def wait(self, seconds, condition, process=None):
        """Waits for a condition; what does not come in time is a hang of the process. Returns whether it came."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.stopping.is_set():
                raise Stopped
            if time.monotonic() > deadline:
                if process:
                    process.hang = True
                return False
            time.sleep(POLL_S)
        return True

    # --- the run ---------------------------------------------------------------------------------

    def go(self):
        """Carries the plan out. Returns the outcome."""
        began = time.time()
        self.prepare()
        server = self.serve(1, f"{SERVER_IN_NETWORK if self.network else '127.0.0.1'}:0")
        if self.address and not server.ended():
            self.quiet = self.settled(server)
            server = self.round(1, server)
            if self.plan["again"]:
                self.mend()
                if (self.kind_hits_server() or self.plan["server"]["one_off"]) and not server.ended():
                    # Its calls go on failing, or it is for one session; the next one is whole.
                    self.stop(server)
                if {"SIGINT", "SIGTERM"} & set(server.sent):
                    self.wait(ENDS_S, server.ended, server)
                if server.ended():
                    server = self.serve(2, self.address)
                    if "in use" in server.errors.read_text(errors="replace"):
                        raise Void("somebody took the port")
                    self.quiet = self.settled(server)
                server = self.round(2, server)
        self.stop(server)
        return self.outcome(began)

    def kind_hits_server(self):
        return self.fault["kind"] in ("call server", "descriptors server", "log disk full")

    def round(self, round_, server):
        wrong = [process for process in self.plan["processes"] if process["wrong"]]
        others = [process for process in self.plan["processes"] if not process["wrong"]]
        # Those that are refused come first: a seat that they had for a moment is free again.
        for process in wrong:
            refused = self.fetch(process, round_)
            self.wait(ENDS_S, refused.ended, refused)
        running = {}
        if round_ == 1 and self.fault["kind"] == "loss":
            self.network.tell("fault", *(self.fault[word] for word in ("loss", "duplicates", "reordered", "what")))
        for process in others:
            time.sleep(process["delay_ms"] / 1000)
            running[process["name"]] = self.fetch(process, round_)
        if round_ == 1:
            server = self.inflict(server, running)
        deadline = time.monotonic() + ENDS_S
        for process in running.values():
            self.wait(max(deadline - time.monotonic(), 0), process.ended, process)
            if process.hang:
                self.note_stacks(process)
                process.end()
        for process in others:
            if process.get("receipt") and running[process["name"]].popen.returncode == 0:
                self.post_receipt(process, round_)
        self.trees.append(self.tree())
        return server

    def note_stacks(self, process):
        """What the threads of a process that hangs wait for."""
        for task in Path(f"/proc/{process.popen.pid}/task").glob("*"):
            try:
                self.notes.append(f"{process.name}: {(task / 'comm').read_text().strip()} waits in "
                                  f"{(task / 'wchan').read_text()}, {(task / 'syscall').read_text().strip()}")
            except OSError:
                pass

    def post_receipt(self, process, round_):
        head = (self.tools / f"{process['name']}.{round_}.head").read_text(errors="replace")
        path = next((line.split()[1] for line in head.splitlines() if line.lower().startswith("gatecast-receipt:")), None)
        if path:
            try:
                to = http.client.HTTPConnection(self.address, timeout=10)
                to.request("POST", path, f"sha1={sha1(self.work / process['out'] / process['file'])}")
                to.getresponse().read()
                to.close()
            except OSError as error:
                self.notes.append(f"the receipt of {process['name']}: {error}")

    # --- the faults ------------------------------------------------------------------------------

    def moment(self, running):
        """Waits for the moment of the fault."""
        moment = self.fault["moment"]
        if "ms" in moment:
            until = time.monotonic() + moment["ms"] / 1000
            self.wait(moment["ms"] / 1000, lambda: time.monotonic() >= until)
            return
        process = self.plan["processes"][moment["of"]]
        one = running.get(process["name"])
        wanted = moment["part"] * self.plan["files"][process["file"]]
        folder = self.work / process["out"]

        def come():
            if one is None or one.ended():
                return True
            for path in list(folder.iterdir()):
                try:
                    if path.stat().st_size >= max(wanted, 1) and str(path.relative_to(self.work)) not in self.before:
                        return True
                except OSError:
                    pass
            return False

        self.wait(MOMENT_S, come)

    def inflict(self, server, running):
        """Does what the plan says to the programs as they run. Returns the server, which may be another by then."""
        kind = self.fault["kind"]
        if "moment" not in self.fault or kind == "disk full" and not self.fault["filled"]:
            return server
        self.moment(running)
        hit = [server] if kind.endswith(" server") else [running[name] for name in self.fault["targets"]]
        if kind.startswith("kill ") or kind == "restart server":
            for process in hit:
                process.send(signal.SIGKILL)
                self.wait(ENDS_S, process.ended, process)
        if kind == "restart server":
            return self.serve(2, self.address)
        if kind.startswith("end "):
            for process in hit:
                process.send(signal.Signals[f"SIG{self.fault['signal']}"])
        if kind.startswith("stop "):
            for process in hit:
                process.send(signal.SIGSTOP)
            time.sleep(self.fault["ms"] / 1000)
            for process in hit:
                process.send(signal.SIGCONT)
        if kind == "disk full":
            for folder in self.mounts:
                self.fill(folder / "hog")
        if kind == "link":
            self.network.tell(self.fault["how"])
            time.sleep(self.fault["ms"] / 1000)
            self.network.tell("mend" if self.fault["how"] == "hole" else "up")
        if kind == "clock":
            new = self.tools / "clock.new"
            new.write_text(f"{self.fault['seconds']}\n")
            new.rename(self.tools / "clock")
        return server

    @staticmethod
    def fill(path):
        try:
            with open(path, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(64 * PAGE))
        except OSError:
            pass

    def mend(self):
        """Ends every fault, for the second round."""
        if self.fault["kind"] == "loss":
            self.network.tell("fault", 0, 0, 0, "udp")
        for folder in self.mounts:
            (folder / "hog").unlink(missing_ok=True)
            subprocess.run(["mount", "-o", "remount,size=128m", folder], check=True)

    # --- the end ---------------------------------------------------------------------------------

    @staticmethod
    def counts(process):
        """The descriptors and threads of a process; `None` when it has ended."""
        try:
            return {what: len(os.listdir(f"/proc/{process.popen.pid}/{what}")) for what in ("fd", "task")}
        except OSError:
            return None

    def settled(self, process):
        """Its counts, once they have not changed for a while."""
        seen, since = None, time.monotonic()
        deadline = since + 5
        while time.monotonic() < min(since + 0.06, deadline):
            now = self.counts(process)
            if now != seen:
                seen, since = now, time.monotonic()
            time.sleep(POLL_S)
        return seen

    def stop(self, server):
        """Waits until the server is as quiet as in the beginning, and ends it, where it does not end by itself."""
        if not server.ended() and self.quiet:
            def is_quiet():
                self.after = self.counts(server)
                if server.ended():
                    self.after = None  # What was counted while it ended is not what it left.
                return not self.after or all(
                    self.after[what] <= self.quiet[what] + each * self.plan["kept"] for what, each in KEPT.items())
            self.wait(QUIET_S, is_quiet)
            # A server for one session that has had it ends by itself.
            if self.plan["server"]["one_off"] and any(self.work.glob("logs*/*.log")):
                self.wait(QUIET_S, server.ended)
        if not server.ended():
            self.after = self.open_files(server) if self.after else None
            # A library hands signals on through a socket. Where calls on it fail, the server hears of none.
            deaf = server.round == 1 and self.fault["kind"] in ("call server", "interrupted calls") and {
                "sendto", "recvfrom"} & set(self.fault["call"].split(","))
            server.send(signal.SIGKILL if deaf else signal.SIGTERM)
            if not self.wait(ENDS_S, server.ended, server):
                self.note_stacks(server)

    def open_files(self, server):
        counts = self.counts(server) or self.after
        files = []
        for fd in Path(f"/proc/{server.popen.pid}/fd").glob("*"):
            try:
                files.append(os.readlink(fd))
            except OSError:
                pass
        # A server that ends meanwhile has none.
        return counts | {"files": sorted(files)} if files else None

    def running(self):
        """What of this run still runs: the process, and what it is."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                marked = f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
                inside = self.network and os.stat(folder / "ns/net").st_ino in self.network.inodes
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            # One that has ended has no command line, and waits for its parent.
            if command and (marked or inside):
                found.append((int(folder.name), f"{'process' if marked else 'namespace of process'} {folder.name}: {command}"))
        return found

    def left(self):
        """The same, once everything should have ended."""
        self.wait(10, lambda: not self.running())
        return [what for _, what in self.running()]

    def tree(self):
        """Every file below the work folder: its size, its SHA-1, and whether it begins a file of the server."""
        sources = {hashlib.sha1(content(self.plan["seed"], name, size)).hexdigest()[:12]: name
                   for name, size in self.plan["files"].items()}
        files = {}
        for path in sorted(self.work.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                continue
            about = {"kind": "file" if path.is_file() and not path.is_symlink() else "other", "size": path.lstat().st_size}
            if about["kind"] == "file":
                about["sha1"] = sha1(path)
                name = sources.get(path.name[1:13]) if path.name.endswith(".part") else None
                if name:
                    whole = content(self.plan["seed"], name, self.plan["files"][name])
                    about["begins"] = whole.startswith(path.read_bytes())
            files[str(path.relative_to(self.work))] = about
        return files

    def outcome(self, began):
        if self.network:
            self.network.end()
        logs = sorted(self.work.glob("logs*/*.log"))
        reports = {}
        for log in logs:
            # A log must be readable whatever stands in it.
            report = subprocess.run([self.program, "report", log, "--json"], capture_output=True, text=True, errors="replace",
                                    timeout=ENDS_S, cwd=self.tools)
            reports[str(log.relative_to(self.work))] = {"code": report.returncode, "stdout": report.stdout, "stderr": report.stderr}
        sources = {name: {"size": size, "sha1": hashlib.sha1(content(self.plan["seed"], name, size)).hexdigest()}
                   for name, size in self.plan["files"].items()}
        injected = {path.name.split(".")[0]: path.read_text(errors="replace").count("(INJECTED)") for path in self.tools.glob("*.strace")}
        # Folders of logs may have changed since the last round.
        self.trees[-1:] = [self.tree()]
        left = self.left() + [f"temporary file {path.relative_to(self.tmp)}" for path in self.tmp.rglob("*")]
        return {
            "procs": [process.outcome() for process in self.processes], "trees": self.trees, "before": self.before,
            "sources": sources, "logs": {str(log.relative_to(self.work)): log.read_bytes().decode(errors="replace") for log in logs},
            "reports": reports, "left": left, "quiet": self.quiet, "after": self.after, "began": began, "ended": time.time(),
            "injected": injected, "notes": self.notes,
        }

    def clean(self):
        for process in self.processes:
            process.end()
            # It leaves its shared memory when it is killed.
            for path in Path("/dev/shm").glob(f"*faketime_*_{process.popen.pid}"):
                path.unlink(missing_ok=True)
        if self.network and self.network.popen.poll() is None:
            self.network.end()
        for pid, _ in self.running():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # It has just ended.
        if self.network:
            self.network.forget()
        for folder in self.mounts:
            subprocess.run(["umount", "-l", folder], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def execute(plan, program, folder, stopping=None):
    """Carries a plan out in `folder`, which is made and removed. Returns the outcome."""
    run = Run(plan, program, folder, stopping or threading.Event())
    try:
        return json.loads(json.dumps(run.go()))
    finally:
        run.clean()
