#!/usr/bin/env python3
"""Runs the real programs under faults that a seed draws, and judges what came of it.

    python3 tests/campaign/campaign.py --program target/debug/gatecast --first 1 --runs 200 --jobs 4
    python3 tests/campaign/campaign.py --program target/debug/gatecast --seed 17     one run, with all that it did

docs/campaign.md says what is drawn and what is judged. It ends with 0 if every run kept every promise.
"""
import argparse
import collections
import concurrent.futures
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True  # The tree stays as it was.

from draw import draw
from execute import execute
from judge import judge
from programs import Stopped, Void

CLONE_NEWNS = 0x00020000


def own_mounts():
    """From here on what is mounted is seen by this process and its children, and ends with them."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0:
        subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True)


def one(seed, options, place, stopping):
    """Draws, carries out and judges one seed. Returns the plan, the outcome, what is wrong and the seconds."""
    plan, began = draw(seed), time.monotonic()
    outcome = None
    try:
        outcome = execute(plan, options.program, os.path.join(place, f"run-{seed}"), stopping)
        wrong = judge(plan, outcome)
    except Void as why:
        return plan, outcome, f"void: {why}", time.monotonic() - began
    except Stopped:
        raise
    except Exception as error:  # The campaign itself is wrong: a failure, with its place.
        import traceback
        wrong = [f"the campaign failed: {error!r}: {traceback.format_exc()}"]
    return plan, outcome, wrong, time.monotonic() - began


class Tally:
    def __init__(self):
        self.ways, self.kinds = collections.Counter(), collections.Counter()
        self.codes, self.counts = collections.Counter(), collections.Counter()
        self.failed, self.void, self.seconds = [], collections.Counter(), 0.0

    def add(self, plan, outcome, wrong, seconds):
        self.seconds += seconds
        if isinstance(wrong, str):
            self.void[wrong] += 1
            return
        self.counts["runs"] += 1
        self.ways[plan["way"]] += 1
        self.kinds[plan["fault"]["kind"]] += 1
        if wrong:
            self.failed.append(plan["seed"])
        for process in outcome["procs"] if outcome else []:
            self.counts[f"{process['kind']}s"] += 1
            end = process["signal"] or process["code"]
            self.codes[f"{process['kind']} {end}"] += 1
        if outcome:
            self.counts["rows of logs"] += sum(text.count("\n") - 1 for text in outcome["logs"].values() if text)
            self.counts["files looked at"] += sum(len(tree) for tree in outcome["trees"])
            self.counts["failed calls"] += sum(outcome["injected"].values())

    def show(self, options, elapsed):
        def row(title, counter):
            return f"{title:<10}" + ", ".join(f"{name} {count}" for name, count in sorted(counter.items(), key=lambda pair: str(pair[0])))

        first = options.first
        print(f"seeds      {first} to {first + self.counts['runs'] + sum(self.void.values()) - 1}")
        print(row("ways", self.ways))
        print(row("faults", self.kinds))
        print(row("ends", self.codes))
        print(row("counted", self.counts))
        if self.void:
            print(row("not run", self.void))
        print(f"time       {elapsed:.0f} s, {self.seconds / max(self.counts['runs'], 1):.2f} s a run, {options.jobs} at a time")
        print(f"result     {self.counts['runs'] - len(self.failed)} of {self.counts['runs']} runs kept every promise"
              + (f"; failed: {' '.join(map(str, self.failed))}" if self.failed else ""), flush=True)


def show_all(plan, outcome):
    print(json.dumps(plan, indent=1))
    if not outcome:
        return
    for process in outcome["procs"]:
        end = process["signal"] or process["code"]
        print(f"--- {process['name']}, round {process['round']}: {end}, sent {process['sent']}")
        print((process["stdout"] + process["stderr"]).rstrip()[:6000])
    for path, text in outcome["logs"].items():
        print(f"--- {path}\n{text.rstrip()}")
    print(json.dumps({key: outcome[key] for key in ("trees", "left", "quiet", "after", "injected", "notes")}, indent=1))


def campaign(options, place, stopping):
    tally, began = Tally(), time.monotonic()
    workers = concurrent.futures.ThreadPoolExecutor(options.jobs)
    runs = set()
    seeds = iter(range(options.first, options.first + options.runs))
    try:
        while True:
            while len(runs) < options.jobs * 2 and (seed := next(seeds, None)) is not None:
                runs.add(workers.submit(one, seed, options, place, stopping))
            if not runs:
                break
            run = next(concurrent.futures.as_completed(runs))
            runs.remove(run)
            plan, outcome, wrong, seconds = run.result()
            tally.add(plan, outcome, wrong, seconds)
            if options.verbose:
                print(f"{plan['seed']} {plan['way']} {plan['fault']['kind']} {seconds:.2f} s {wrong or 'ok'}", flush=True)
            elif wrong and not isinstance(wrong, str):
                print(f"seed {plan['seed']} ({plan['way']}, {plan['fault']['kind']}): " + "\n    ".join(wrong), flush=True)
            if tally.counts["runs"] % 1000 == 0 and tally.counts["runs"]:
                print(f"[{tally.counts['runs']} runs, {len(tally.failed)} failed, {time.monotonic() - began:.0f} s]", flush=True)
    except KeyboardInterrupt:
        stopping.set()
        for run in runs:
            run.cancel()
        print("interrupted", flush=True)
    finally:
        workers.shutdown(wait=True)
    tally.show(options, time.monotonic() - began)
    if options.required and tally.void:
        print("some runs could not be made here, and all are required")
        return 1
    return 130 if stopping.is_set() else 1 if tally.failed or not tally.counts["runs"] else 0


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/debug/gatecast", help="the program under test")
    parser.add_argument("--first", type=int, default=int(time.time()), help="the first seed; the time unless given")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, help="run this seed alone, and show the plan and all that came of it")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--required", action="store_true", help="a run that cannot be made here is a failure")
    parser.add_argument("--verbose", action="store_true", help="a line for each run")
    options = parser.parse_args()
    options.program = os.path.abspath(options.program)
    if not os.path.exists(options.program):
        parser.error(f"there is no {options.program}: cargo build")
    signal.signal(signal.SIGTERM, interrupt)
    own_mounts()
    place = tempfile.mkdtemp(prefix="gatecast-campaign-")
    try:
        if options.seed is not None:
            plan, outcome, wrong, seconds = one(options.seed, options, place, threading.Event())
            show_all(plan, outcome)
            print(f"seed {options.seed}, {seconds:.2f} s: " + (wrong if isinstance(wrong, str) else "\n    ".join(wrong) or "every promise was kept"))
            return 1 if wrong else 0
        print(f"campaign   {options.runs} runs from seed {options.first} on", flush=True)
        return campaign(options, place, threading.Event())
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
