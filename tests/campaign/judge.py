"""Says what is wrong with the outcome of a run. It reads files, exit codes, logs and what still runs, as
the documents describe them, and shares no code with the program.

`judge(plan, outcome)` returns a list of sentences; an empty one means that all promises were kept.
"""
import datetime
import json
import re

PART = re.compile(r"\.[0-9a-f]{12}-\d+\.(holes\.|pieces\.)?part")
LOG = re.compile(r"(logs\d*)/(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)-([0-9a-f]{16})\.log")
SECONDS = re.compile(r"\d+\.\d{6}")
COLUMNS = ("session seat date time via file size client_bytes client_s client_mbit client_port server_bytes server_s "
           "server_mbit server_port verdict verified reason name client server clients sha1 resumed verified_s durable_s").split()
VERDICTS = {"complete", "cut", "corrupt", "timed_out", "refused"}
# Worst first: where several codes hold, the first counts.
WORST = [130, 1, 2, 5, 3, 4, 6, 0]
# The word of the loader when it may not map or open a library, and the code with which it ends.
LOADER, LOADER_CODE = "error while loading shared libraries", 127
# What a client says that has its copy, of which the server's figures say that it was given up.
GIVEN_UP = "the server counts this copy as"
STALL_S = 2
# How far dates and durations may differ from what the campaign saw.
CLOCK_SLACK_S = 3


def judge(plan, outcome):
    return Judge(plan, outcome).all()


class Judge:
    def __init__(self, plan, outcome):
        self.plan, self.outcome, self.wrong = plan, outcome, []
        self.fault = plan["fault"]
        self.kind = self.fault["kind"]
        self.planned = {process["name"]: process for process in plan["processes"]}
        self.logs = {path: self.read_log(path, text) for path, text in outcome["logs"].items()}

    def say(self, sentence):
        self.wrong.append(sentence)

    def all(self):
        for process in self.outcome["procs"]:
            self.process(process)
        for number, tree in enumerate(self.outcome["trees"], 1):
            self.tree(number, tree)
        for path, rows in self.logs.items():
            self.log(path, rows)
            self.report(path, rows)
        self.copies_are_logged()
        for process in self.outcome["procs"]:
            if process["kind"] == "server":
                self.server_code(process)
        self.left_over()
        return self.wrong

    # --- whom the fault may hurt -----------------------------------------------------------------

    def harmless(self):
        """Whether nobody may be hurt by the fault."""
        if self.kind == "loss":
            return self.fault["what"] == "udp"
        if self.kind in ("stop client", "stop server", "link"):
            # A link that comes back within the limit costs the datagrams that were on it, and TCP repairs.
            return self.fault["ms"] / 1000 < STALL_S * 0.7 and self.kind != "link"
        if self.kind == "interrupted calls":
            # A program that was not even loaded keeps the others waiting.
            return not any(self.had_calls_failing(process) and LOADER in process["stderr"] for process in self.outcome["procs"])
        return self.kind in ("none", "clock")

    def of_all(self):
        """Whether the fault may hurt every client."""
        return not self.harmless() and (self.kind.endswith(" server") or self.kind in ("link", "loss", "log disk full"))

    def may_be_hurt(self, name, round_):
        return round_ == 1 and not self.harmless() and (self.of_all() or name in self.fault["targets"])

    def had_calls_failing(self, process):
        at = self.fault.get("at")
        hit = process["name"] in self.fault["targets"] or process["kind"] == "server" and self.kind.endswith(" server")
        hit = hit or at in ("both", "server" if process["kind"] == "server" else "clients")
        return process["round"] == 1 and hit and self.kind.split()[0] in ("call", "interrupted", "descriptors")

    # --- exit codes ------------------------------------------------------------------------------

    def process(self, process):
        who = f"{process['name']} (round {process['round']})"
        if process["hang"]:
            self.say(f"{who} does not end")
            return
        if process["signal"]:
            if process["signal"] not in process["sent"]:
                self.say(f"{who} was ended by {process['signal']}, which nobody sent")
            return
        for line in process["stderr"].splitlines():
            # The thread of a library that hands signals on panics where reading its own socket fails.
            if "panicked" in line and not ("thread 'signals'" in line and self.had_calls_failing(process)):
                self.say(f"{who} panicked: {line}")
        if process["kind"] == "client":
            self.client(process, who)
        if process["kind"] == "curl":
            self.curl(process, who)

    def client_codes(self, process):
        """The codes with which a client may end here."""
        planned, round_ = self.planned[process["name"]], process["round"]
        hurt = self.may_be_hurt(process["name"], round_)
        codes = {1} if planned["wrong"] else {0}
        if self.plan["way"] == "raw" and not planned["wrong"]:
            codes |= {4}
        if hurt and self.kind == "end client":
            codes |= {0}
        elif hurt:
            codes |= {0, 1, 3, 4} if not planned["wrong"] else {3, 4}
            if self.kind == "call server" and "the source cannot be read" in process["stderr"]:
                codes |= {5}  # What the server could not read is not in the copy, and its digest says so.
            if GIVEN_UP in process["stderr"]:
                codes |= {6}  # It has its copy, and the server's figures do not: that is what 6 says.
        elif round_ == 1 and not self.harmless() and self.was_kept_waiting(process["name"]) and not planned["wrong"]:
            # Somebody for whom its session waited did not come to the release.
            codes |= {3}
        if round_ == 1 and not self.harmless() and not planned["wrong"] and self.is_over_before_its_release():
            codes |= {1}
        if {"SIGINT", "SIGTERM"} & set(process["sent"]):
            codes |= {130}
        if self.had_calls_failing(process) and LOADER in process["stderr"]:
            codes |= {LOADER_CODE}
        return codes

    def is_over_before_its_release(self):
        """Whether the one session of a server was ended by the fault: the clients say how many they are, and all that had
        come have left. Nobody listens for those that come later."""
        server = self.plan["server"]
        return server["one_off"] and server["clients"] is None and any(not self.is_released(rows) for rows in self.logs.values() if rows)

    def was_kept_waiting(self, name):
        """Whether a session of this client was never released."""
        return any(self.owner(row["name"]) == name for rows in self.logs.values() if not self.is_released(rows) for row in rows)

    @staticmethod
    def is_released(rows):
        return any(row["date"] != "-" for row in rows)

    def client(self, process, who):
        planned, code = self.planned[process["name"]], process["code"]
        codes = self.client_codes(process)
        if code not in codes:
            last = process["stderr"].strip().splitlines()[-1:] or [""]
            self.say(f"{who} ended with {code}, not one of {sorted(codes)}: {last[0]}")
        whole = self.whole_copies(planned, self.outcome["trees"][process["round"] - 1])
        if code == 0 and len(whole) < planned["clients"]:
            self.say(f"{who} ended with 0 and has {len(whole)} of {planned['clients']} copies")
        # A code other than 0 says that the copy is not proven, unless it was interrupted or its figures lie (6).
        alone = self.plan["layout"] == "each" and process["round"] == 1 and not planned["there"]
        # A client that cannot write its table ends with 1, whatever its copy is.
        mute = code == 1 and self.had_calls_failing(process) and self.fault.get("call") == "write"
        if alone and code not in (0, 6, 130, None) and whole and not mute:
            self.say(f"{who} ended with {code} and has a whole copy under its final name")
        if code == 0 and "--json" in planned["args"]:
            self.document(process, who)
        # 1 says that it could not run or was refused, 4 that its transfer failed.
        released = re.findall(r"^released (never|\d{4})", process["stdout"], re.MULTILINE)
        if planned["clients"] == 1 and code in (1, 4) and released and not mute and (released[-1] == "never") != (code == 1):
            self.say(f"{who} ended with {code}, and says that it was released: {released[-1]}")

    def document(self, process, who):
        try:
            document = json.loads(process["stdout"])
        except ValueError:
            # To a reader that is gone (EPIPE) nothing more is written, as is the custom.
            if not (self.had_calls_failing(process) and self.fault.get("error") == "EPIPE"):
                self.say(f"{who} printed no JSON document")
            return
        rows = document["results"]
        if document["schema"] != "gatecast.session/1" or document["identities"] != "hold" or not rows:
            self.say(f"{who} printed a document that is not right: {document['schema']}, {document['identities']}")
        if not all(row["verified"] is True and row["outcome"] == "complete" for row in rows):
            self.say(f"{who} ended with 0 and its document names a copy that is not proven")

    def curl(self, process, who):
        planned, code = self.planned[process["name"]], process["code"]
        codes = {0}
        if process["round"] == 1 and not self.harmless():
            # Too few came: 503, for which curl ends with 22.
            codes = None if self.may_be_hurt(process["name"], 1) else {0, 22}
        if codes and code not in codes:
            self.say(f"{who} ended with {code}, not one of {sorted(codes)}: {process['stderr'].strip()}")
        path = f"{planned['out']}/{planned['file']}"
        there = self.outcome["trees"][process["round"] - 1].get(path)
        if code == 0 and not self.is_whole(there, planned["file"]):
            self.say(f"{who} ended with 0 and has another file, or none")

    # --- files -----------------------------------------------------------------------------------

    def is_whole(self, there, name):
        source = self.outcome["sources"][name]
        return bool(there) and there["kind"] == "file" and there["sha1"] == source["sha1"] and there["size"] == source["size"]

    def final_name(self, planned):
        """The names that copies of a process may have."""
        seat = r"C\d+-" if planned["clients"] > 1 else ""
        return re.compile(re.escape(planned["out"]) + "/" + seat + re.escape(planned["file"]))

    def whole_copies(self, planned, tree):
        pattern = self.final_name(planned)
        return [path for path, there in tree.items() if pattern.fullmatch(path) and self.is_whole(there, planned["file"])]

    def was_killed(self, owners):
        """Whether one of these could not remove the empty file with which it tries the folder: SIGKILL came between."""
        names = {planned["name"] for planned in owners}
        return any(process["name"] in names and "SIGKILL" in process["sent"] for process in self.outcome["procs"])

    def tree(self, round_, tree):
        sources = {f"src/{name}": source["sha1"] for name, source in self.outcome["sources"].items()}
        for path, sha1 in sources.items():
            if path not in tree or tree[path].get("sha1") != sha1:
                self.say(f"after round {round_} the server's {path} is not what it was")
        for path, sha1 in self.outcome["before"].items():
            if path not in tree:
                self.say(f"after round {round_} the user's file {path} is gone")
        for path, there in tree.items():
            if path in sources or path in ("key", "other") or LOG.fullmatch(path) or path.endswith("/hog"):
                continue
            owners = [planned for planned in self.planned.values() if path.startswith(planned["out"] + "/")]
            name = path.rpartition("/")[2]
            if owners and PART.fullmatch(name):
                self.part(round_, path, there, owners)
            elif name.startswith(".gatecast-") and (self.cannot_clean() or self.was_killed(owners) and there["size"] == 0):
                continue
            elif not any(self.final_name(planned).fullmatch(path) for planned in owners):
                self.say(f"after round {round_} there is a file that nobody promised: {path}")
            else:
                self.final(round_, path, there, owners)

    def final(self, round_, path, there, owners):
        """Under a final name: a whole copy, or what the user had there before."""
        if any(self.is_whole(there, planned["file"]) for planned in owners):
            if any(planned["wrong"] for planned in owners):
                self.say(f"after round {round_} a client that must be refused has a copy: {path}")
            return
        if there.get("sha1") and there["sha1"] == self.outcome["before"].get(path):
            return
        # curl writes under the final name itself, and says by its code when that is not the file.
        if not all(planned["kind"] == "curl" for planned in owners):
            self.say(f"after round {round_} {path} has {there['size']} bytes and is not the file")

    def cannot_clean(self):
        """Whether clients cannot see or remove what they made."""
        return self.kind == "call client" and self.fault.get("call") in ("statx", "unlink")

    def part(self, round_, path, there, owners):
        if there["kind"] != "file":
            self.say(f"after round {round_} the part {path} is no file")
            return
        if not re.search(r"\.(holes|pieces)\.part$", path) and not there.get("begins"):
            self.say(f"after round {round_} the part {path} would be resumed, and does not begin the file")
        names = {planned["name"] for planned in owners}
        ends = [process for process in self.outcome["procs"] if process["name"] in names and process["round"] <= round_]
        if len(names) == 1 and self.planned[next(iter(names))]["clients"] == 1:
            # What a client of its own folder leaves is gone when it has succeeded.
            ends = ends[-1:]
        if all(process["code"] == 0 for process in ends) and not self.cannot_clean():
            self.say(f"after round {round_} there is a part though every client of its folder succeeded: {path}")

    # --- logs ------------------------------------------------------------------------------------

    def torn_is_right(self, path):
        """Whether the server that wrote this log was hindered."""
        return path.startswith("logs/") and self.kind in ("log disk full", "call server", "kill server", "restart server",
                                                          "descriptors server")

    def read_log(self, path, text):
        lines = text.split("\n")
        torn = lines.pop()
        if (torn or not lines) and not self.torn_is_right(path):
            self.say(f"{path} is cut before its end")
        if not lines:
            return []
        header = lines[0].split(" | ")
        if header[:len(COLUMNS)] != COLUMNS:
            self.say(f"{path} has not the columns that are documented")
            return []
        rows = []
        for number, line in enumerate(lines[1:], 2):
            cells = line.split(" | ")
            if len(cells) != len(header):
                self.say(f"{path}, line {number} has {len(cells)} columns of {len(header)}")
            else:
                rows.append(dict(zip(header, cells)))
        return rows

    def owner(self, name):
        """The process of a client, by the client's name: `p1`, or `p0-3` where it has several."""
        return name if name in self.planned else re.sub(r"-\d+$", "", name)

    def log(self, path, rows):
        match = LOG.fullmatch(path)
        if not match:
            self.say(f"{path} is no name of a log")
            return
        released = [row["seat"] for row in rows if row["woke_us"] != "-"]
        if len(set(released)) < len(released):
            self.say(f"{path}: a seat was released twice")
        for column in ("session", "via", "file", "size", "sha1", "clients", "date", "time"):
            # A client that left before the release has none of its date.
            if len({row[column] for row in rows} - ({"-"} if column in ("date", "time") else set())) > 1:
                self.say(f"{path}: its rows differ in {column}")
        for number, row in enumerate(rows, 2):
            for sentence in self.row(row, match[3]):
                self.say(f"{path}, line {number}: {sentence}")

    def row(self, row, session):
        source = self.outcome["sources"].get(row["file"])
        if row["session"] != session:
            yield f"the session is {row['session']}"
        if not source or row["size"] != str(source["size"]) or row["sha1"] != source["sha1"]:
            yield f"no such file was offered: {row['file']}, {row['size']} bytes, {row['sha1']}"
            return
        if row["verdict"] not in VERDICTS or row["verified"] not in ("yes", "no", "-"):
            yield f"the verdict is {row['verdict']}, verified is {row['verified']}"
        if not 1 <= int(row["seat"]) <= int(row["clients"]):
            yield f"the seat is {row['seat']} of {row['clients']}"
        planned = self.planned.get(self.owner(row["name"]))
        if not planned:
            yield f"there was no client {row['name']}"
        elif row["verified"] == "yes":
            yield from self.proven_row(row, planned)
        yield from self.times(row)
        yield from self.sums(row, source["size"])

    def proven_row(self, row, planned):
        if row["verdict"] != "complete":
            yield f"{row['name']} is proven, and {row['verdict']}"
        name = f"C{row['seat']}-{row['file']}" if planned["clients"] > 1 else row["file"]
        there = self.outcome["trees"][-1].get(f"{planned['out']}/{name}") if self.outcome["trees"] else None
        if not self.is_whole(there, row["file"]):
            yield f"{row['name']} is called proven, and has no whole copy"
        if planned["wrong"]:
            yield f"{row['name']} is called proven, and must be refused"

    def times(self, row):
        longest = self.outcome["ended"] - self.outcome["began"] + CLOCK_SLACK_S
        for column in ("client_s", "server_s", "verified_s", "durable_s"):
            if row[column] != "-" and not (SECONDS.fullmatch(row[column]) and float(row[column]) <= longest):
                yield f"{column} is {row[column]} in a run of {longest:.1f} s"
        if row["date"] != "-" and self.kind != "clock":
            at = datetime.datetime.fromisoformat(f"{row['date']}T{row['time']}+00:00").timestamp()
            if not self.outcome["began"] - CLOCK_SLACK_S <= at <= self.outcome["ended"] + CLOCK_SLACK_S:
                yield f"the release was at {row['date']} {row['time']}"

    def sums(self, row, size):
        def number(column):
            return None if row.get(column, "-") == "-" else int(row[column])

        def broken(whole, *parts):
            values = [number(part) for part in parts]
            if number(whole) is not None and None not in values and number(whole) != sum(values):
                return f"{whole} is {number(whole)}, and {' + '.join(parts)} is {sum(values)}"

        yield from filter(None, [broken("offered", "unique", "lost", "unheard"),
                                 broken("lost", "local_drop", "network_lost", "host_rx_drop"),
                                 broken("delivered", "unique", "duplicate", "corrupt", "foreign", "late")])
        again = number("retransmitted")
        if row["verdict"] == "complete":
            for side in ("client", "server"):
                sent_again = side == "server" and (again is not None or number("bytes_from_peers") is not None)
                moved = number(f"{side}_bytes")
                if moved is not None and not sent_again and moved + number("resumed") != size:
                    yield f"complete, with {moved} bytes at the {side} and {row['resumed']} from before"
            parts = [number(part) for part in ("bytes_from_server", "bytes_from_peers", "client_bytes")]
            if None not in parts and parts[0] + parts[1] != parts[2] + (again or 0):
                yield f"{parts[0]} bytes from the server and {parts[1]} from peers are not {parts[2]} + {again or 0}"
        for side in ("client", "server"):
            moved, seconds, rate = number(f"{side}_bytes"), row[f"{side}_s"], row[f"{side}_mbit"]
            if moved and "-" not in (seconds, rate) and float(seconds) > 0:
                least, most = (moved * 8 / (float(seconds) + error) / 1e6 for error in (1e-6, -0.999e-6))
                if not least * 0.999 - 0.001 <= float(rate) <= most * 1.001 + 0.001:
                    yield f"{moved} bytes in {seconds} s are not {rate} Mbit/s"

    def report(self, path, rows):
        report = self.outcome["reports"][path]
        if report["code"] != 0:
            # A log without a header is no log.
            if rows or not self.torn_is_right(path):
                self.say(f"report cannot read {path}: {report['stderr'].strip()}")
            return
        try:
            document = json.loads(report["stdout"]) if report["stdout"].strip() else {"results": []}
        except ValueError:
            self.say(f"report made no document of {path}")
            return
        proven = sum(result["verified"] is True for result in document["results"])
        if len(document["results"]) != len(rows) or proven != sum(row["verified"] == "yes" for row in rows):
            self.say(f"report sees {proven} proven of {len(document['results'])} in {path}, which has {len(rows)} rows")
        if rows and document["identities"] != "hold":
            self.say(f"report says of {path}: {document['identities']}")

    def copies_are_logged(self):
        """Whoever was told that its copy is proven stands so in the log, where nothing hindered both."""
        if self.of_all():
            return
        for name, planned in self.planned.items():
            if planned["kind"] != "gatecast" or not self.harmless() and name in self.fault["targets"]:
                continue
            told = sum(process["code"] == 0 for process in self.outcome["procs"] if process["name"] == name)
            rows = [row for rows in self.logs.values() for row in rows if self.owner(row["name"]) == name]
            proven = sum(row["verified"] == "yes" for row in rows)
            if proven < told * planned["clients"]:
                self.say(f"{name} ended {told} times with 0, and the log proves {proven} copies")

    # --- the server's code, and what is left -----------------------------------------------------

    def earned(self, logs):
        """The code that the sessions of these logs have earned."""
        codes = [0]
        for rows in filter(None, logs):
            verdicts = {row["verdict"] for row in rows}
            proven = sum(row["verified"] == "yes" and row["verdict"] == "complete" for row in rows)
            if "corrupt" in verdicts:
                codes.append(5)
            elif not self.is_released(rows):
                codes.append(3)
            elif proven < int(rows[0]["clients"]):
                # The seat of a client that left before the release may have had another.
                codes.append(4)
        return min(codes, key=WORST.index)

    def server_code(self, process):
        if process["hang"] or process["signal"]:
            return
        who, code = f"server (round {process['round']})", process["code"]
        folder = "logs/" if process["round"] == 1 else f"logs{process['round']}/"
        earned = self.earned([rows for path, rows in self.logs.items() if path.startswith(folder)])
        hindered = process["round"] == 1 and (self.kind.endswith(" server") or self.kind == "log disk full") and not self.harmless()
        codes = {earned}
        if earned in (0, 4) and not (self.harmless() and not any(p["wrong"] for p in self.planned.values())):
            # A session in which only clients were that left before the release has no log.
            codes.add(3)
        if earned == 3 and {"SIGINT", "SIGTERM"} & set(process["sent"]):
            # All who waited have left. The session waits on for others, until the server is stopped.
            codes.add(130)
        if sum(other["kind"] == "server" and other["round"] == process["round"] for other in self.outcome["procs"]) > 1:
            codes.add(0)  # Two servers, one after the other, have this folder; one of them had no session.
        if self.kind == "end server" and process["round"] == 1:
            codes.add(130)
        elif hindered:
            codes |= {1, 3, 4}
        if self.had_calls_failing(process) and LOADER in process["stderr"]:
            codes.add(LOADER_CODE)
        if code not in codes:
            last = process["stderr"].strip().splitlines()[-1:] or [""]
            self.say(f"{who} ended with {code}, not one of {sorted(codes)}: {last[0]}")
        if code != 1 and self.kind == "log disk full" and process["round"] == 1:
            self.lost_rows(process, who)

    def lost_rows(self, process, who):
        """A server that could not write its log says so by its code."""
        text = "".join(text for path, text in self.outcome["logs"].items() if path.startswith("logs/"))
        for client in self.outcome["procs"]:
            if client["kind"] == "client" and client["round"] == 1 and client["code"] == 0 and f" | {client['name']}" not in text:
                self.say(f"{who} ended with {process['code']}, and its log has no row of {client['name']}")

    def left_over(self):
        for what in self.outcome["left"]:
            self.say(f"left: {what}")
        quiet, after = self.outcome["quiet"], self.outcome["after"]
        # A session that all have left waits on for others: its log, its file and its thread are open.
        waiting = sum(not self.is_released(rows) for rows in self.logs.values() if rows)
        if quiet and after:
            # With multicast a socket of its own, too.
            for what, name, each, open_ in (("fd", "descriptors", 2, 3), ("task", "threads", 1, 1)):
                if after[what] > quiet[what] + each * self.plan["kept"] + open_ * waiting:
                    self.say(f"the server has {after[what]} {name}, and had {quiet[what]} before: {after.get('files')}")
