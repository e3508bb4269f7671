"""The judge refuses each outcome that is not right, and takes the ones that are.

    python3 -m unittest discover -s tests/campaign
"""
import collections
import copy
import hashlib
import json
import unittest

from draw import FAULTS, draw
from judge import judge

BYTES = b"the file\n" * 1000
SIZE, SHA1 = len(BYTES), hashlib.sha1(BYTES).hexdigest()
HALF = {"kind": "file", "size": 10, "sha1": hashlib.sha1(BYTES[:10]).hexdigest()}
WHOLE = {"kind": "file", "size": SIZE, "sha1": SHA1}
PART = f".{SHA1[:12]}-1.part"
SESSION = "0123456789abcdef"
LOG = f"logs/2026-11-22_01-00-00-{SESSION}.log"
HEADER = (
    "session seat date time via file size client_bytes client_s client_mbit client_port server_bytes server_s server_mbit "
    "server_port verdict verified reason name client server clients sha1 resumed verified_s durable_s woke_us first_server_us "
    "first_client_us clock sender lost duplicate reordered jitter_us retransmitted bytes_from_server bytes_from_peers offered "
    "local_drop network_lost host_rx_drop delivered unique corrupt foreign late unheard reorder_extent loss_burst").split()
AT = 1_795_309_200.0  # 2026-11-22 01:00:00 UTC


def row(seat, **others):
    """The row of a client with a proven copy."""
    cells = dict.fromkeys(HEADER, "-") | {
        "session": SESSION, "seat": seat, "date": "2026-11-22", "time": "01:00:00.500000", "via": "tcp", "file": "f.bin",
        "size": SIZE, "client_bytes": SIZE, "client_s": "0.001000", "client_mbit": "72.000", "server_bytes": SIZE,
        "server_s": "0.002000", "server_mbit": "36.000", "verdict": "complete", "verified": "yes", "name": f"p{seat - 1}",
        "clients": 2, "sha1": SHA1, "resumed": 0, "verified_s": "0.003000", "woke_us": 5,
    } | others
    return " | ".join(str(cells[column]) for column in HEADER)


def log(*rows):
    return "".join(line + "\n" for line in [" | ".join(HEADER), *rows])


def process(name, kind="client", **others):
    return {"name": name, "kind": kind, "round": 1, "sent": [], "hang": False, "code": 0, "signal": None, "stdout": "",
            "stderr": ""} | others


def report(*verified):
    document = {"results": [{"verified": one} for one in verified], "identities": "hold"}
    return {"code": 0, "stdout": json.dumps(document), "stderr": ""}


def plan(kind="none", targets=(), **fault):
    processes = [{"name": f"p{number}", "kind": "gatecast", "clients": 1, "file": "f.bin", "out": f"c{number}", "args": [],
                  "there": None, "wrong": None} for number in range(2)]
    return {"seed": 1, "way": "tcp", "layout": "each", "kept": 0, "processes": processes,
            "server": {"one_off": False, "clients": 2},
            "fault": {"kind": kind, "targets": list(targets)} | fault}


def honest():
    """Two clients had their copies."""
    tree = {"src/f.bin": dict(WHOLE), "key": HALF, "other": HALF, LOG: HALF, "c0/f.bin": dict(WHOLE), "c1/f.bin": dict(WHOLE)}
    return {
        "procs": [process("server", "server", sent=["SIGTERM"]), process("p0"), process("p1")], "trees": [tree], "before": {},
        "sources": {"f.bin": {"size": SIZE, "sha1": SHA1}}, "logs": {LOG: log(row(1), row(2))},
        "reports": {LOG: report(True, True)}, "left": [], "quiet": {"fd": 7, "task": 4}, "after": {"fd": 7, "task": 4},
        "began": AT, "ended": AT + 1,
    }


def killed():
    """Client 1 was killed while it received, and left a part."""
    outcome = honest()
    outcome["procs"][0]["code"] = 4
    outcome["procs"][2] |= {"code": None, "signal": "SIGKILL", "sent": ["SIGKILL"]}
    del outcome["trees"][0]["c1/f.bin"]
    outcome["trees"][0]["c1/" + PART] = HALF | {"begins": True}
    cut = row(2, verdict="cut", verified="-", client_bytes="-", client_s="-", client_mbit="-", reason="gone")
    return with_log(outcome, [row(1), cut], [True, None])


def with_log(outcome, rows, verified):
    outcome["logs"] = {LOG: log(*rows)}
    outcome["reports"] = {LOG: report(*verified)}
    return outcome


class JudgeTest(unittest.TestCase):
    def refuse(self, says, change, outcome=None, of=None):
        """Asserts that the judge says this of an outcome that was changed, and said nothing before."""
        outcome, of = copy.deepcopy(outcome or honest()), of or plan()
        self.assertEqual(judge(of, outcome), [])
        change(outcome)
        wrong = judge(of, outcome)
        self.assertTrue(any(says in sentence for sentence in wrong), f"wanted {says!r}, got {wrong}")

    def tree(self, says, path, there, **others):
        self.refuse(says, lambda outcome: outcome["trees"][0].update({path: there}), **others)

    def client(self, says, **changes):
        self.refuse(says, lambda outcome: outcome["procs"][1].update(changes))

    def rows(self, says, *rows, verified=(True, True)):
        self.refuse(says, lambda outcome: with_log(outcome, rows, verified))

    def test_honest_outcomes_pass(self):
        self.assertEqual(judge(plan(), honest()), [])
        self.assertEqual(judge(plan("kill client", ["p1"]), killed()), [])

    def test_half_file_under_final_name_is_refused(self):
        self.tree("is not the file", "c0/f.bin", HALF)
        outcome = killed()
        self.tree("is not the file", "c1/f.bin", HALF, outcome=outcome, of=plan("kill client", ["p1"]))

    def test_other_file_under_final_name_is_refused(self):
        self.tree("is not the file", "c0/f.bin", WHOLE | {"sha1": "0" * 40})
        self.tree("is not the file", "c0/f.bin", WHOLE | {"kind": "other"})

    def test_file_of_the_user_that_is_gone_is_refused(self):
        self.refuse("the user's file c0/f.bin is gone", lambda outcome: (
            outcome.update(before={"c0/f.bin": SHA1}), outcome["trees"][0].pop("c0/f.bin")))

    def test_files_that_nobody_promised_are_refused(self):
        for path in ("c0/g.bin", "c0/C1-f.bin", "c0/.f.bin.tmp", "f.bin", "logs/x.log", "src/new", "c0/.part"):
            self.tree("nobody promised", path, HALF)

    def test_probe_of_the_folder_may_stand_where_its_client_was_killed(self):
        path, empty = "c1/.gatecast-8566259c89ebd2d1", {"kind": "file", "size": 0, "sha1": hashlib.sha1(b"").hexdigest()}
        self.tree(f"a file that nobody promised: {path}", path, empty)
        of = plan("kill client", ["p1"])
        outcome = killed()
        outcome["trees"][0][path] = dict(empty)
        self.assertEqual(judge(of, outcome), [])
        self.tree(f"a file that nobody promised: {path}", path, dict(WHOLE), outcome=outcome, of=of)

    def test_one_session_of_a_server_may_be_over_for_late_clients(self):
        late = {"code": 1, "stderr": "gatecast: cannot connect"}
        gone = [row(1, date="-", time="-", verdict="refused", verified="-", woke_us="-", reason="full", **dict.fromkeys(
            ["client_bytes", "client_s", "client_mbit", "server_bytes", "server_s", "server_mbit", "verified_s"], "-"))]
        outcome = with_log(honest(), gone, [None])
        outcome["procs"][0]["code"], outcome["procs"][1]["code"] = 3, 1
        outcome["procs"][2] |= late
        outcome["trees"][0] = {path: there for path, there in outcome["trees"][0].items() if not path.startswith("c")}
        of = plan("disk full", ["p0"])
        of["server"] = {"one_off": True, "clients": None}
        self.assertEqual(judge(of, outcome), [])
        of["server"] = {"one_off": True, "clients": 2}
        self.assertIn("p1 (round 1) ended with 1", "".join(judge(of, outcome)))

    def test_changed_source_is_refused(self):
        self.tree("is not what it was", "src/f.bin", HALF)

    def test_part_that_does_not_begin_the_file_is_refused(self):
        for begins in (False, None):
            self.tree("would be resumed", "c1/" + PART, HALF | {"begins": begins}, outcome=killed(), of=plan("kill client", ["p1"]))

    def test_part_with_holes_need_not_begin_the_file(self):
        outcome = killed()
        outcome["trees"][0][f"c1/.{SHA1[:12]}-1.holes.part"] = HALF | {"begins": False}
        self.assertEqual(judge(plan("kill client", ["p1"]), outcome), [])

    def test_part_of_a_client_that_succeeded_is_refused(self):
        self.tree("every client of its folder succeeded", "c0/" + PART, HALF | {"begins": True})

    def test_exit_0_without_file_is_refused(self):
        self.refuse("has 0 of 1 copies", lambda outcome: outcome["trees"][0].pop("c0/f.bin"))

    def test_exit_codes_that_nothing_explains_are_refused(self):
        for code in (1, 2, 3, 4, 5, 6, 101, 127, 130):
            self.client("p0 (round 1) ended with", code=code)

    def test_code_for_bystander_is_refused(self):
        self.refuse("p0 (round 1) ended with 4", lambda outcome: outcome["procs"][1].update(code=4), killed(), plan("kill client", ["p1"]))

    def test_failure_with_whole_copy_is_refused(self):
        outcome = killed()
        outcome["procs"][2] |= {"code": 4, "signal": None, "sent": []}
        self.tree("ended with 4 and has a whole copy", "c1/f.bin", WHOLE, outcome=outcome, of=plan("call client", ["p1"]))

    def test_code_6_needs_figures_that_contradict(self):
        outcome, of = honest(), plan("stop client", ["p1"], ms=5000)
        given_up = row(2, verdict="timed_out", verified="-", client_bytes="-", client_s="-", client_mbit="-", reason="no new piece for 2 s")
        with_log(outcome, [row(1), given_up], [True, None])["procs"][0]["code"] = 4
        outcome["procs"][2] |= {"code": 6, "stderr": "WARN  the server counts this copy as timed_out: no new piece for 2 s"}
        self.refuse("p1 (round 1) ended with 6", lambda outcome: outcome["procs"][2].update(stderr=""), outcome, of)

    def test_code_that_denies_the_release_is_refused(self):
        outcome, of = killed(), plan("call client", ["p1"])
        outcome["procs"][2] |= {"code": 4, "signal": None, "sent": [], "stdout": "released 2026-11-22 01:00:00 UTC, 9000 bytes"}
        self.refuse("ended with 1, and says that it was released: 2026", lambda outcome: outcome["procs"][2].update(code=1), outcome, of)
        self.refuse("ended with 4, and says that it was released: never",
                    lambda outcome: outcome["procs"][2].update(stdout="released never, 9000 bytes"), outcome, of)

    def test_interrupted_client_must_say_so(self):
        outcome, of = killed(), plan("end client", ["p1"])
        outcome["procs"][2] |= {"code": 130, "signal": None, "sent": ["SIGINT"]}
        self.refuse("p1 (round 1) ended with 4", lambda outcome: outcome["procs"][2].update(code=4), outcome, of)

    def test_code_3_needs_a_session_that_was_never_released(self):
        outcome = killed()
        self.refuse("p0 (round 1) ended with 3", lambda outcome: outcome["procs"][1].update(code=3), outcome, plan("kill client", ["p1"]))
        waited = [row(1, date="-", time="-", verdict="timed_out", verified="-", woke_us="-", **dict.fromkeys(
            ["client_bytes", "client_s", "client_mbit", "server_bytes", "server_s", "server_mbit", "verified_s"], "-"))]
        outcome["procs"][1]["code"] = outcome["procs"][0]["code"] = 3
        del outcome["trees"][0]["c0/f.bin"]
        self.assertEqual(judge(plan("kill client", ["p1"]), with_log(outcome, waited, [None])), [])

    def test_hang_signal_and_panic_are_refused(self):
        self.client("does not end", hang=True, code=None)
        self.client("ended by SIGSEGV, which nobody sent", code=None, signal="SIGSEGV")
        self.client("panicked", stderr="thread 'client-1' panicked at src/x.rs:1")

    def test_document_that_lies_is_refused(self):
        of = plan()
        of["processes"][0]["args"] = ["--json"]
        outcome = honest()
        said = {"schema": "gatecast.session/1", "identities": "hold", "results": [{"verified": True, "outcome": "complete"}]}
        outcome["procs"][1]["stdout"] = json.dumps(said)
        said["results"][0]["verified"] = None
        self.refuse("names a copy that is not proven", lambda outcome: outcome["procs"][1].update(stdout=json.dumps(said)), outcome, of)
        self.refuse("no JSON", lambda outcome: outcome["procs"][1].update(stdout="{"), outcome, of)

    def test_log_row_that_calls_a_missing_copy_proven_is_refused(self):
        lie = with_log(killed(), [row(1), row(2)], [True, True])
        wrong = judge(plan("kill client", ["p1"]), lie)
        self.assertTrue(any("p1 is called proven, and has no whole copy" in sentence for sentence in wrong), wrong)

    def test_proven_copy_without_row_is_refused(self):
        self.rows("p1 ended 1 times with 0, and the log proves 0", row(1), verified=[True])
        self.rows("the log proves 0", row(1), row(2, verified="-"), verified=[True, None])

    def test_log_rows_that_do_not_add_up_are_refused(self):
        self.rows("8999 bytes at the client", row(1, client_bytes=SIZE - 1, client_mbit="71.992"), row(2))
        self.rows("8999 bytes at the server", row(1, server_bytes=SIZE - 1, server_mbit="35.996"), row(2))
        self.rows("are not 73.000 Mbit/s", row(1, client_mbit="73.000"), row(2))
        self.rows("lost is 3", row(1, lost=3, local_drop=1, network_lost=1, host_rx_drop=0), row(2))
        self.rows("offered is 9", row(1, offered=9, unique=7, lost=1, unheard=0), row(2))
        self.rows("are not 9000 + 0", row(1, bytes_from_server=4000, bytes_from_peers=4000), row(2))

    def test_log_rows_of_another_world_are_refused(self):
        self.rows("no such file was offered", row(1, sha1="0" * 40), row(2))
        self.rows("there was no client p7", row(1), row(2), row(1, name="p7", woke_us="-"), verified=[True] * 3)
        self.rows("the session is 1", row(1, session="1"), row(2))
        self.rows("a seat was released twice", row(1), row(1, name="p1"))
        self.rows("the seat is 3 of 2", row(1), row(3, name="p1"))
        self.rows("client_s is 70.000000 in a run of", row(1, client_s="70.000000", client_mbit="0.001"), row(2))
        self.rows("the release was at 2026-11-21", row(1, date="2026-11-21"), row(2, date="2026-11-21"))
        self.rows("p0 is proven, and cut", row(1, verdict="cut"), row(2))

    def test_log_that_cannot_be_read_is_refused(self):
        self.refuse("has 3 columns of", lambda outcome: outcome["logs"].update({LOG: log(row(1), row(2), "a | b | c")}))
        self.refuse("is cut before its end", lambda outcome: outcome["logs"].update({LOG: log(row(1), row(2))[:-1]}))
        self.refuse("report cannot read", lambda outcome: outcome["reports"][LOG].update(code=1))
        self.refuse("report sees 1 proven of 2", lambda outcome: outcome["reports"].update({LOG: report(True, None)}))

    def test_server_code_that_its_log_does_not_earn_is_refused(self):
        for code in (1, 3, 4, 5, 6, 101, 130):
            self.refuse("server (round 1) ended with", lambda outcome: outcome["procs"][0].update(code=code))
        self.refuse("server (round 1) ended with 0", lambda outcome: outcome["procs"][0].update(code=0), killed(), plan("kill client", ["p1"]))

    def test_server_that_lost_rows_must_say_so(self):
        of, outcome = plan("log disk full", pages=0), with_log(honest(), [row(1), row(2)], [True, True])
        outcome["procs"][0]["code"] = 1
        self.assertEqual(judge(of, outcome), [])
        outcome["logs"], outcome["reports"] = {LOG: ""}, {LOG: report() | {"code": 1}}
        self.assertEqual(judge(of, outcome), [])
        outcome["procs"][0]["code"] = 0
        self.assertTrue(any("its log has no row of p0" in sentence for sentence in judge(of, outcome)))

    def test_what_is_left_is_refused(self):
        self.refuse("left: process 17", lambda outcome: outcome["left"].append("process 17: gatecast"))
        self.refuse("the server has 8 descriptors", lambda outcome: outcome["after"].update(fd=8))
        self.refuse("the server has 5 threads", lambda outcome: outcome["after"].update(task=5))

    def test_curl_that_succeeds_without_the_file_is_refused(self):
        of, outcome = plan(), honest()
        of["processes"][0]["kind"] = outcome["procs"][1]["kind"] = "curl"
        self.tree("has another file, or none", "c0/f.bin", HALF, outcome=outcome, of=of)

    def test_client_that_must_be_refused_and_is_served_is_refused(self):
        of = plan()
        of["processes"][1]["wrong"] = "key"
        wrong = judge(of, honest())
        for says in ("p1 (round 1) ended with 0, not one of [1]", "a client that must be refused has a copy", "p1 is called proven, and must"):
            self.assertTrue(any(says in sentence for sentence in wrong), f"{says}: {wrong}")


class DrawTest(unittest.TestCase):
    def test_seed_decides_the_plan(self):
        self.assertEqual(draw(17), draw(17))
        self.assertNotEqual(draw(17), draw(18))

    def test_every_fault_and_way_is_drawn(self):
        plans = [draw(seed) for seed in range(2000)]
        kinds = collections.Counter(plan["fault"]["kind"] for plan in plans)
        self.assertEqual(set(kinds), set(FAULTS))
        self.assertGreater(min(kinds.values()), 20)
        self.assertEqual({plan["way"] for plan in plans}, {"tcp", "udp", "multicast", "swarm", "raw", "http"})
        self.assertTrue({0, 1} < {plan["files"]["f.bin"] for plan in plans})
        clients = {sum(process["clients"] for process in plan["processes"] if not process["wrong"]) for plan in plans}
        self.assertTrue(clients >= {1, 2, 3, 4, 5, 6, 8})


if __name__ == "__main__":
    unittest.main()
