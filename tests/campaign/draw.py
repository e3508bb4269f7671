"""What a seed means: a plan, which says all that a run does. It depends on the seed and nothing else."""
import random

SIZES = [0, 1, 1023, 1024, 1025, 65_536, 100_000, 300_001, 1_000_000, 2_000_003, 4_000_000]
WAYS = ["tcp"] * 4 + ["udp"] * 3 + ["multicast"] * 3 + ["swarm"] * 3 + ["raw"] + ["http"] * 2

# Kind of fault, and how often.
FAULTS = {
    "none": 4, "kill client": 10, "kill server": 8, "restart server": 5, "stop client": 6, "stop server": 4,
    "end client": 4, "end server": 3, "call client": 12, "call server": 10, "interrupted calls": 4,
    "disk full": 8, "log disk full": 4, "descriptors client": 4, "descriptors server": 4,
    "loss": 12, "link": 7, "clock": 5,
}

# System calls and the errors with which they may fail. strace counts the calls of each thread.
CLIENT_CALLS = [
    ("pwrite64", "ENOSPC"), ("pwrite64", "EIO"), ("pread64", "EIO"), ("splice", "ENOSPC"), ("splice", "EINVAL"),
    ("splice", "EIO"), ("fsync", "EIO"), ("rename", "EXDEV"), ("rename", "EIO"), ("ftruncate", "EIO"),
    ("recvfrom", "ECONNRESET"), ("sendto", "EPIPE"), ("sendto", "ECONNRESET"), ("openat", "EMFILE"),
    ("openat", "ENOSPC"), ("socket", "EMFILE"), ("connect", "ECONNREFUSED"), ("connect", "ETIMEDOUT"),
    ("clone3", "EAGAIN"), ("mkdir", "EACCES"), ("flock", "EIO"), ("unlink", "EIO"), ("statx", "EIO"), ("poll", "ENOMEM"),
    ("recvmmsg", "ENOBUFS"), ("recvmsg", "ECONNRESET"), ("setsockopt", "ENOPROTOOPT"), ("mmap", "ENOMEM"),
    ("write", "EIO"), ("write", "EPIPE"), ("bind", "EADDRINUSE"), ("pipe2", "EMFILE"), ("fcntl", "EMFILE"),
]
SERVER_CALLS = [
    ("pread64", "EIO"), ("sendfile", "EIO"), ("sendfile", "EINVAL"), ("sendfile", "ECONNRESET"), ("accept4", "EMFILE"),
    ("accept4", "ECONNABORTED"), ("accept4", "ENFILE"), ("clone3", "EAGAIN"), ("openat", "EMFILE"), ("openat", "EACCES"),
    ("sendto", "ECONNRESET"), ("sendto", "ENOBUFS"), ("sendmmsg", "ENOBUFS"), ("sendmsg", "ENOBUFS"), ("write", "ENOSPC"),
    ("write", "EIO"), ("fsync", "EIO"), ("recvfrom", "ECONNRESET"), ("poll", "ENOMEM"), ("setsockopt", "ENOPROTOOPT"),
    ("mkdir", "EACCES"), ("statx", "EIO"), ("socket", "EMFILE"), ("bind", "EADDRINUSE"), ("mmap", "ENOMEM"),
    ("getpeername", "ENOTCONN"), ("shutdown", "ENOTCONN"), ("fcntl", "EMFILE"),
]
INTERRUPTED = ["recvfrom,read", "sendfile,splice", "sendto,write,pwrite64", "pread64", "accept4,connect,poll",
               "sendmsg,recvmsg,sendmmsg,recvmmsg"]


def draw(seed):
    dice = random.Random(seed)
    plan = {"seed": seed, "way": dice.choice(WAYS)}
    plan["fault"] = fault = {"kind": dice.choices(list(FAULTS), list(FAULTS.values()))[0]}
    draw_files(dice, plan)
    draw_clients(dice, plan)
    draw_server(dice, plan)
    draw_fault(dice, plan, fault)
    may_fail = fault["kind"] not in ("none", "clock", "interrupted calls")
    plan["again"] = may_fail and dice.random() < 0.7
    return plan


def draw_files(dice, plan):
    """One file, or a folder of them of which two are fetched at the same time."""
    size = dice.choice(SIZES)
    if dice.random() < 0.3:
        size = dice.randrange(4_000_000)
    plan["folder"] = plan["way"] != "multicast" and dice.random() < 0.15
    plan["files"] = {"f.bin": size}
    if plan["folder"]:
        plan["files"] |= {"empty": 0, "one": 1, "g.bin": dice.randrange(1_000_000)}


def draw_clients(dice, plan):
    """Processes of clients: a process for each, or one for all, with folders of their own or one folder."""
    count = dice.choice([1, 1, 2, 2, 3, 3, 4, 5, 6, 8])
    layout = dice.choice(["each"] * 4 + ["one"] * 2 + ["shared"])
    if plan["folder"] and count > 1:
        layout = "each"
    plan["layout"] = layout
    names_file = plan["folder"] or dice.random() < 0.5
    overwrite = dice.random() < 0.2
    processes = []
    for number in range(1 if layout == "one" else count):
        # In a folder half of the clients fetch another file, in a session of its own.
        file = "g.bin" if plan["folder"] and number % 2 else "f.bin"
        process = {
            "name": f"p{number}", "kind": "gatecast", "clients": count if layout == "one" else 1, "file": file,
            "names_file": names_file, "out": "all" if layout == "shared" else f"c{number}", "args": [],
            "delay_ms": dice.choice([0, 0, 0, dice.randrange(120)]), "there": None, "wrong": None,
        }
        if overwrite:
            process["args"] += ["--overwrite"]
        process["args"] += dice.choice([[], [], [], ["--json"], ["--events"]])
        process["args"] += dice.choice([[], [], ["--copy", "buffered"], ["--copy", "sendfile"]])
        process["args"] += dice.choice([[], [], [], ["--sha1", "right"]])
        if layout == "each" and dice.random() < 0.1:
            process["there"] = dice.choice(["same", "other"])
            if process["there"] == "other" and not (names_file or overwrite):
                process["wrong"] = "taken"
        processes.append(process)
    plan["processes"] = processes
    draw_curls(dice, plan)
    draw_wrong(dice, plan)


def draw_curls(dice, plan):
    """curl takes a seat beside the clients, with a receipt or without."""
    mixes = plan["way"] in ("tcp", "http") and plan["layout"] == "each"
    for process in plan["processes"]:
        if mixes and not process["wrong"] and dice.random() < (0.3 if plan["way"] == "http" else 0.1):
            process |= {"kind": "curl", "args": [], "there": None, "receipt": dice.random() < 0.5}


def draw_wrong(dice, plan):
    """A key, and one client more that must be refused, by the key or by another SHA-1."""
    curls = any(process["kind"] == "curl" for process in plan["processes"])
    plan["key"] = not curls and dice.random() < 0.2
    wrong = [None] * 8 + ["sha1"] + (["key", "no key"] if plan["key"] else [])
    which = dice.choice(wrong)
    if which:
        plan["processes"].append({
            "name": "wrong", "kind": "gatecast", "clients": 1, "file": "f.bin", "names_file": plan["folder"], "out": "cw",
            "args": ["--sha1", "wrong"] if which == "sha1" else [], "delay_ms": 0, "there": None, "wrong": which,
        })


def honest(plan, file=None):
    """How many clients are to have a copy, of `file` or of any."""
    return sum(process["clients"] for process in plan["processes"]
               if not process["wrong"] and file in (None, process["file"]))


def draw_server(dice, plan):
    count = honest(plan)
    server = {"args": [], "log": "logs"}
    # A rate at which the transfer takes so long that a fault can meet it.
    plan["seconds"] = dice.choice([None, None, 0.15, 0.4, 0.8])
    longest = max(plan["files"].values())
    if plan["seconds"] and longest > 20_000:
        server["args"] += ["--rate", f"{max(longest * 8 * count / plan['seconds'] / 1e6, 1):.0f}mbit"]
    server["args"] += dice.choice([[], [], ["--copy", "buffered"], ["--copy", "sendfile"]])
    server["args"] += dice.choice([[], [], [], ["--congestion", "reno"]])
    server["args"] += dice.choice([[], [], [], [], ["--json"], ["--events"]])
    if plan["way"] in ("udp", "raw", "multicast"):
        # A datagram above 1472 travels in pieces. Where pieces are lost, the kernel keeps the others for 30 s
        # and takes no more once they fill its room.
        large = "1000" if plan["fault"]["kind"] == "loss" else "9000"
        server["args"] += dice.choice([[], [], ["--datagram", "1000"], ["--datagram", large]])
    # Who says how many: the server, or the clients.
    server["clients"] = count if not plan["folder"] and (count == 0 or dice.random() < 0.5) else None
    server["says_way"] = dice.random() < 0.5
    server["quorum"] = None
    if server["clients"] and dice.random() < 0.12:
        # One client never comes, and the others are released without it.
        server |= {"clients": count + 1, "quorum": max(count, 1)}
    server["one_off"] = not plan["folder"] and not any(p["wrong"] for p in plan["processes"]) and dice.random() < 0.2
    server["max_wait"] = 4 if server["quorum"] else 20
    server["stall"] = None
    if plan["way"] == "http":
        # The first to come decides the way where the server does not, and curl knows only one.
        server["says_way"] = True
    # A swarm's torrent stays with the server: a thread and two open files. One that is told the way has them
    # from the beginning.
    fetched = {process["file"] for process in plan["processes"]}
    plan["kept"] = sum(plan["files"][file] > 0 for file in fetched) if plan["way"] == "swarm" and not server["says_way"] else 0
    plan["server"] = server


def moment(dice, plan):
    """When a fault comes: so long after the clients were started, or when a part has so much of the file."""
    if dice.random() < 0.5:
        return {"ms": dice.choice([dice.randrange(60), dice.randrange(400), dice.randrange(1500)])}
    return {"part": round(dice.random(), 3), "of": dice.randrange(len(plan["processes"]))}


def draw_fault(dice, plan, fault):
    kind, server = fault["kind"], plan["server"]
    fault["targets"] = targets = []
    signalled = kind in ("kill client", "stop client", "end client")
    candidates = [process for process in plan["processes"]
                  if not process["wrong"] and (signalled or process["kind"] == "gatecast")]
    of_client = kind.endswith(" client") or kind == "disk full"
    if of_client and candidates:
        targets += sorted({dice.choice(candidates)["name"] for _ in range(dice.choice([1, 1, 2]))})
    if kind in ("kill client", "kill server", "restart server", "stop client", "stop server", "end client", "end server"):
        fault["moment"] = moment(dice, plan)
    if kind.startswith("stop "):
        fault["ms"] = dice.choice([dice.randrange(50, 400), dice.randrange(400, 1200), 3500])
        server["stall"] = 2
    if kind.startswith("end "):
        fault["signal"] = dice.choice(["INT", "TERM"])
    if kind in ("call client", "call server"):
        call, error = dice.choice(CLIENT_CALLS if kind == "call client" else SERVER_CALLS)
        nth = dice.choice([1, 1, 2, 3, 4, 5, 8, 13, 30])
        # Before the program begins, the system's loader maps it; that crashes by itself where it cannot.
        nth += 60 if call == "mmap" else 0
        fault |= {"call": call, "error": error, "when": f"{nth}{dice.choice(['', '', '+', '+3'])}"}
    if kind == "interrupted calls":
        fault |= {"call": dice.choice(INTERRUPTED), "error": "EINTR", "when": dice.choice(["5+3", "2+7", "9+11"]),
                  "at": dice.choice(["server", "clients"])}
    if kind == "disk full":
        outs = {process["out"] for process in plan["processes"] if process["name"] in targets}
        targets[:] = [process["name"] for process in plan["processes"] if process["out"] in outs]
        # The room for copies is small from the beginning, or somebody else fills it meanwhile.
        fault |= {"room": round(dice.choice([0.0, 0.3, 0.9, 1.0, 1.1, 1.7]), 2), "filled": dice.random() < 0.4,
                  "moment": moment(dice, plan)}
    if kind == "log disk full":
        fault["pages"] = dice.choice([0, 0, 1])
    if kind.startswith("descriptors "):
        fault["limit"] = dice.choice([dice.randrange(3, 12), dice.randrange(8, 30), dice.randrange(60, 90)])
    draw_network(dice, plan, fault)
    # Where a client may vanish before the release, or fail to come, the others wait for it.
    if of_client and kind not in ("stop client",) or kind in ("call server", "descriptors server"):
        server["max_wait"] = 8


def draw_network(dice, plan, fault):
    plan["network"] = fault["kind"] in ("loss", "link") or plan["way"] != "http" and dice.random() < 0.05
    if plan["network"]:
        for process in plan["processes"]:
            process.pop("receipt", None)
    if fault["kind"] == "loss":
        fault |= {"loss": round(dice.choice([0, dice.uniform(0, 0.02), dice.uniform(0, 0.2)]), 4),
                  "duplicates": round(dice.choice([0, dice.uniform(0, 0.1)]), 4),
                  "reordered": round(dice.choice([0, dice.uniform(0, 0.2)]), 4),
                  "what": dice.choice(["udp"] * 5 + ["all"])}
        if fault["what"] == "all":
            fault["loss"] = round(min(fault["loss"], 0.03), 4)
    if fault["kind"] == "link":
        fault |= {"how": dice.choice(["hole", "down"]), "moment": moment(dice, plan),
                  "ms": dice.choice([dice.randrange(20, 300), dice.randrange(300, 1200), 3500])}
        plan["server"]["stall"] = 2
    if fault["kind"] == "clock":
        fault |= {"at": dice.choice(["server", "clients", "both"]), "moment": moment(dice, plan),
                  "seconds": dice.choice([-1, -60, -3600, -86_400 * 30])}
