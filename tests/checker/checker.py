#!/usr/bin/env python3
"""Runs real sessions on stars with a capture at every host, and holds what gatecast said of them against
what the captures say. `bash tests/checker/run` calls it; docs/checker.md has its figures."""

import argparse
import collections
import copy
import csv
import dataclasses
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import capture
import sessions

WAYS = ["tcp", "http", "udp", "raw", "multicast", "swarm"]
SECONDS = (0.002, 0.005)
SKEW_US = 150
LIMIT = 90

INSIDE = r"""
set -u
gatecast=$1 clients=$2 way=$3 rate=$4
on() { exec "$gatecast" star exec "$@"; }
flags=(); [[ $rate == 0 ]] || flags=(--rate "$rate")
# One processor takes over what comes to a host: with two, the order in a capture may be another than
# that at the socket.
for ((host = 0; host <= clients; host++)); do
    ip netns exec "$GATECAST_STAR-h$host" sh -c 'echo 1 >/sys/class/net/eth0/queues/rx-0/rps_cpus' || exit 9
done
(on 0 -- "$gatecast" serve f.bin --clients "$clients" --one-off --via "$way" --json --max-wait 30s \
    --log-dir logs "${flags[@]}" >doc.json 2>serve.err) &
for ((tries = 0; tries < 400; tries++)); do
    grep -q '^listening' serve.err && break
    sleep 0.02
done
pids=()
for ((host = 1; host <= clients; host++)); do
    if [[ $way == http ]]; then
        (on "$host" -- curl -sf -o "copy$host" "http://10.77.0.1:8080/files/f.bin?gate&name=h$host") &
    else
        (on "$host" -- "$gatecast" fetch 10.77.0.1 --name "h$host" --out "c$host" >"h$host.out" 2>"h$host.err") &
    fi
    pids+=($!)
done
wait
"""


@dataclasses.dataclass
class Plan:
    """One session, drawn by a seed."""

    seed: int
    way: str
    clients: int
    size: int
    link: int
    loss: str
    rate: str

    def __str__(self):
        rate = f", sent at {self.rate}" if self.rate != "0" else ""
        return f"{self.way} to {self.clients}, {self.size} bytes, {self.link} Mbit/s, loss {self.loss}{rate}"


def draw(seed):
    """The session of a seed. Six seeds in a row have the six ways."""
    dice = random.Random(seed)
    way = WAYS[seed % len(WAYS)]
    link = dice.choice([20, 50, 100, 200])
    size = dice.randrange(20_000, link * 15_000)
    loss = dice.choice(["0", "0.5%", "2%"])
    # Without repair nothing slows the sender down but its own rate.
    rate = f"{link * 3 // 4}mbit" if way == "raw" else "0"
    return Plan(seed, way, dice.randrange(1, 5), size, link, loss, rate)


def run(plan, program, place):
    """Runs a session in `place`; the document that the server printed."""
    with open(place / "f.bin", "wb") as file:
        file.write(random.Random(plan.seed).randbytes(plan.size))
    of = "tcp" if plan.way in ("tcp", "http", "swarm") else "udp"
    command = [program, "star", "run", "--hosts", str(plan.clients + 1), "--rate", f"{plan.link}mbit",
               "--loss", plan.loss, "--loss-of", of, "--capture", "captures", "--snap-length", "65535", "--",
               "bash", "-c", INSIDE, "inside", program, str(plan.clients), plan.way, plan.rate]
    environment = {name: value for name, value in os.environ.items() if name != "GATECAST_STAR"}
    ended = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=LIMIT,
                           stdin=subprocess.DEVNULL, check=False)
    said = (place / "doc.json").read_text() if (place / "doc.json").exists() else ""
    if ended.returncode or not said.strip():
        raise RuntimeError(f"no session: code {ended.returncode}: {ended.stderr.strip()[-600:]}")
    return json.loads(said.strip())


@dataclasses.dataclass
class Figure:
    """A figure from the captures and what gatecast said."""

    kind: str
    name: str
    wire: object
    said: object

    def holds(self):
        if self.kind == "exact":
            return self.wire == self.said
        if self.wire is None or self.said is None:
            return False
        off = abs(self.wire - self.said)
        if self.kind == "seconds":
            return off <= max(SECONDS[0], SECONDS[1] * self.wire)
        return off <= SKEW_US


def figures(plan, document, seats, at, lost):
    """All figures that both sides know."""
    found = []
    for host, seat in sorted(seats.items()):
        said = next(one for one in document["results"] if one["client"].startswith(sessions.address(host) + ":"))
        if plan.way == "swarm":
            said = said | {"retransmitted": said["retransmitted"] or 0}
        for name, wire in seat.exact.items():
            value = document["file"]["sha1"] if name == "sha1" else said[name]
            found.append(Figure("exact", f"h{host} {name}", wire, value))
        for name, wire in seat.times.items():
            found.append(Figure("seconds", f"h{host} {name}", wire, said[name]))
    whole = [seat.exact for seat in seats.values() if "sha1" in seat.exact]
    total = sum(one.get("bytes_client", one.get("bytes_server", 0)) for one in whole)
    if len(whole) == len(seats) and all("bytes_client" in one or plan.way == "http" for one in whole):
        found.append(Figure("exact", "global bytes", total, document["global"]["bytes"]))
    if plan.way in ("tcp", "http"):
        found.append(Figure("skew", "skew_us", sessions.spread(seats, "first_left"), document["release"]["skew_us"]))
    if plan.way == "tcp" and document["release"]["skew_client_us"] is not None:
        wire = sessions.spread(seats, "first_came")
        found.append(Figure("skew", "skew_client_us", wire, document["release"]["skew_client_us"]))
    if lost and plan.way in ("udp", "raw", "multicast"):
        # The packet filter's own count of this way's datagrams is what the two captures differ by.
        for host, count in sessions.filtered(at, plan.clients).items():
            found.append(Figure("exact", f"h{host} packet filter", count, lost[host]))
    return [one for one in found if one.kind != "skew" or plan.clients > 1]


def stated(document):
    """What a calibration says that each figure is off by at most, in the unit of the figure."""
    off = {name: abs(one["systematic"]) + one["random"] for name, one in document["errors"].items()}
    return {name.removesuffix("_us") + ("_us" if name.startswith("skew") else ""):
            us / (1 if name.startswith("skew") else 1e6) for name, us in off.items()}


def losses(place):
    path = place / "captures" / "lost.csv"
    if not path.exists():
        return {}
    with open(path, encoding="ascii") as file:
        return {int(row["host"]): int(row["lost"]) for row in csv.DictReader(file)}


def altered(document, names):
    """The document again and again, each time with one figure of these names that is wrong by one."""
    for number, result in enumerate(document["results"]):
        for name in names:
            if name != "sha1" and result.get(name) is not None:
                other = copy.deepcopy(document)
                other["results"][number][name] += 1
                yield f"{result['name']} {name}", other
    if "sha1" in names:
        other = copy.deepcopy(document)
        other["file"]["sha1"] = document["file"]["sha1"][::-1]
        yield "sha1", other


def check(plan, program, keep):
    """One session: its figures, what else is worth a line, and which planted faults were found and which not."""
    with tempfile.TemporaryDirectory(prefix="gatecast-checker-") as folder:
        place = pathlib.Path(keep or folder)
        place.mkdir(parents=True, exist_ok=True)
        document = run(plan, program, place)
        at, lost = sessions.load(place / "captures", plan.clients), losses(place)

    def judged(document, seats=None):
        seats = seats or sessions.observe(at, plan.way, plan.clients, plan.size, document)
        return figures(plan, document, seats, at, lost), seats

    found, seats = judged(document)
    names = {name for seat in seats.values() for name in seat.exact}
    found_plants, missed = 0, []
    for what, other in altered(document, sorted(names)):
        # Of how many datagrams the other figures are depends on this one alone.
        again = judged(other, None if what.endswith((" delivered", " offered", " retransmitted")) else seats)[0]
        if sum(not one.holds() for one in again if one.kind == "exact") \
                > sum(not one.holds() for one in found if one.kind == "exact"):
            found_plants += 1
        else:
            missed.append(f"a planted fault was not found: {what}")
    return found, seats, found_plants, missed


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--program", required=True)
    options.add_argument("--runs", type=int, default=14)
    options.add_argument("--first", type=int, default=1)
    options.add_argument("--times", action="store_true", help="hold seconds and skew too: for a quiet machine")
    options.add_argument("--calibration", help="count how many figures are within the errors that it states")
    options.add_argument("--keep", help="keep the files of the sessions in this folder")
    args = options.parse_args()
    program = os.path.realpath(args.program)
    errors = stated(json.loads(pathlib.Path(args.calibration).read_text())) if args.calibration else {}
    within = collections.defaultdict(list)
    count, apart, failed = collections.Counter(), collections.defaultdict(list), []
    refused = planned = 0
    began = time.monotonic()
    for seed in range(args.first, args.first + args.runs):
        plan = draw(seed)
        try:
            found, seats, caught, missed = check(plan, program, args.keep and f"{args.keep}/{seed}")
        except (RuntimeError, capture.CaptureError, subprocess.TimeoutExpired, StopIteration) as error:
            failed.append(f"seed {seed}: {plan}: {type(error).__name__}: {error}")
            print(f"{seed:>6}  {plan}: FAILED", flush=True)
            continue
        wrong = [one for one in found if not one.holds() and (args.times or one.kind == "exact")]
        for one in found:
            count[plan.way, one.kind] += 1
            if one.kind != "exact" and None not in (one.wire, one.said):
                apart[plan.way, one.kind].append(abs(one.wire - one.said))
                if plan.way == "tcp":
                    within[one.name.split()[-1]].append(abs(one.wire - one.said))
        exact = sum(one.kind == "exact" for one in found)
        refused, planned = refused + caught, planned + caught + len(missed)
        failed += [f"seed {seed}: {plan}: {line}" for line in missed]
        print(f"{seed:>6}  {plan}: {exact} figures, {len(wrong)} wrong", flush=True)
        for host, seat in sorted(seats.items()):
            for who, given in seat.given.items():
                print(f"        h{host}: {given} from {who}" if plan.way == "swarm" else f"        h{host}: {given} {who}")
        failed += [f"seed {seed}: {plan}: {one.name}: {one.wire} on the wire, {one.said} said" for one in wrong]
    print(f"\n{args.runs} sessions in {time.monotonic() - began:.0f} s")
    print(f"{'':<10} {'exact':>7} {'seconds, ms apart':>36} {'skew, us apart':>34}")
    print(f"{'way':<10} {'figures'}" + f"{'count':>9} {'median':>8} {'95 %':>8} {'most':>8}" * 2)
    for way in WAYS:
        line = f"{way:<10} {count[way, 'exact']:>7}"
        for kind, scale in (("seconds", 1e3), ("skew", 1)):
            values = [value * scale for value in apart[way, kind]]
            cells = [percentile(values, 0.5), percentile(values, 0.95), max(values)] if values else []
            line += f"{len(values):>9}" + "".join(f" {cell:>8.3f}" for cell in cells).ljust(27)
        print(line.rstrip())
    for name, bound in errors.items():
        if values := within[name]:
            unit, scale = ("us", 1) if name.endswith("_us") else ("ms", 1e3)
            print(f"{name}: {sum(value <= bound for value in values)} of {len(values)} within the stated "
                  f"{bound * scale:.3f} {unit}; 95 of 100 are within {percentile(values, 0.95) * scale:.3f}")
    print(f"planted: {refused} of {planned} wrong figures were found")
    if not planned:
        failed.append("no session could be held against its captures")
    for line in failed:
        print(line)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
