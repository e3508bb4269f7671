"""What one session was, from the captures at its hosts alone: figures of each seat, by the names that
gatecast's document has for them. Nothing here is gatecast's code or reads what it says of itself."""

import hashlib
import re
import struct

import capture

SERVER = ("10.77.0.1", 8080)
MAGIC, DATA, XOR, END = b"\x0c\x47\x01", 1, 2, 3


def address(host):
    return f"10.77.0.{host + 1}"


def lines(stream, until):
    """The text lines of a control connection, each with when it was there, to the first that begins with
    `until`; and where that line ends."""
    found, at = [], 0
    while True:
        end = stream.data.find(b"\n", at)
        if end < 0:
            raise capture.CaptureError(f"no line {until.decode()} in {bytes(stream.data[:300])}")
        line = bytes(stream.data[at:end])
        found.append((line, stream.when(end + 1)))
        at = end + 1
        if line.startswith(until):
            return found, at


def field(found, word, name):
    """A field of the first line with this word."""
    for line, _ in found:
        parts = line.split(b" ")
        if parts[0] == word:
            return next((part.split(b"=", 1)[1].decode() for part in parts if part.startswith(name + b"=")), None)
    return None


def only(found, what):
    if len(found) != 1:
        raise capture.CaptureError(f"{len(found)} connections {what}, not one")
    return found[0]


class Seat:
    """One client's figures. `exact` must be equal, `times` are seconds, `moments` are nanoseconds."""

    def __init__(self):
        self.exact, self.times, self.moments, self.given = {}, {}, {}, {}


def control(server, client, host):
    """A native client's control connection at both ends: what each end sent, in both captures."""
    here = address(host)

    def of(found, to_client):
        keys = [(key, one) for key, one in found
                if (key[0] == SERVER and key[1][0] == here if to_client else key[1] == SERVER and key[0][0] == here)]
        if to_client:
            return only([one for _, one in keys if re.match(rb"OFFER |WAIT ", bytes(one.data[:6]))], "to the client")
        return only([one for _, one in keys if one.data.startswith(b"GATECAST/1 JOIN")], "to the server")

    return {
        "go_left": of(server, True), "go_came": of(client, True),
        "said": of(client, False), "heard": of(server, False),
    }


def native(server, client, host):
    """What every way has whose clients are `gatecast fetch`."""
    seat, ends = Seat(), control(server, client, host)
    _, left = lines(ends["go_left"], b"GO ")
    offer, came = lines(ends["go_came"], b"GO ")
    heard, _ = lines(ends["heard"], b"LAST ") if b"\nLAST " in ends["heard"].data else (None, None)
    if heard is not None:
        seat.moments["last_heard"] = heard[-1][1]
    seat.moments["go_left"] = ends["go_left"].when(left)
    seat.moments["go_came"] = ends["go_came"].when(came)
    return seat, ends, offer, left, came


def over_tcp(server, client, host):
    seat, ends, offer, left, came = native(server, client, host)
    wanted = int(field(offer, b"GO", b"bytes"))
    there = ends["go_came"].data[came:came + wanted]
    seat.exact["bytes_client"] = len(there)
    seat.exact["bytes_server"] = len(ends["go_left"].data[left:left + wanted])
    seat.exact["sha1"] = hashlib.sha1(there).hexdigest()
    seat.moments["first_left"] = ends["go_left"].when(left + 1)
    seat.moments["first_came"] = ends["go_came"].when(came + 1)
    last = ends["go_came"].when(came + wanted)
    seat.times["seconds_client"] = (last - seat.moments["go_came"]) / 1e9
    return seat


def over_http(server, client, host):
    seat, here = Seat(), address(host)
    left = only([one for key, one in server if key[0] == SERVER and key[1][0] == here], "to the client")
    came = only([one for key, one in client if key[0] == SERVER and key[1][0] == here], "to the client")
    back = only([one for key, one in server if key[1] == SERVER and key[0][0] == here], "to the server")
    head = came.data.index(b"\r\n\r\n") + 4
    length = int(re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", bytes(came.data[:head])).group(1))
    there = came.data[head:head + length]
    seat.exact["bytes_server"] = len(left.data[head:head + length])
    seat.exact["sha1"] = hashlib.sha1(there).hexdigest()
    seat.moments["first_left"] = seat.moments["go_left"] = left.when(head + 1)
    seat.moments["first_came"] = came.when(head + 1)
    if back.ended is not None:
        seat.moments["last_heard"] = back.ended
    return seat


def leb(data, at):
    value, shift = 0, 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


class Datagram:
    """One datagram of ours."""

    def __init__(self, one):
        data = one.payload
        self.time, self.kind, self.number = one.time, data[3], struct.unpack_from(">I", data, 8)[0]
        self.blocks, self.again, self.payload = [], False, b""
        if self.kind == DATA:
            block, flags, length = struct.unpack_from(">IHH", data, 16)
            self.blocks, self.again, self.payload = [block], bool(flags), data[24:]
        elif self.kind == XOR:
            count, length, block = data[16], *struct.unpack_from(">HI", data, 18)
            self.blocks, at = [block], 24
            for _ in range(count - 1):
                gap, at = leb(data, at)
                self.blocks.append(self.blocks[-1] + gap + 1)
            self.payload = data[at:]
        elif self.kind == END:
            self.upto, length = struct.unpack_from(">I", data, 16)[0], 0
        else:
            raise capture.CaptureError(f"a datagram of kind {self.kind}")
        if len(self.payload) != length:
            raise capture.CaptureError("a datagram's payload was cut, or its length is wrong")


def datagrams(segments, to, group, stream):
    """Ours to one client: to its own port, and to the group."""
    found = []
    for one in segments:
        if one.protocol == "udp" and one.source[0] == SERVER[0] and one.to in (to, group) \
                and one.payload[:3] == MAGIC and one.payload[4:8] == stream:
            found.append(Datagram(one))
    return found


def blocks_held(came, count, size):
    """The index of the datagram with which all blocks are held, or `None`, and the blocks."""
    held, waiting = {}, []
    whole = None

    def solve(one):
        missing = [block for block in one.blocks if block not in held]
        if len(missing) != 1:
            return None
        value = int.from_bytes(one.payload, "big")
        for block in one.blocks:
            if block in held:
                value ^= int.from_bytes(held[block].ljust(len(one.payload), b"\0"), "big")
        return missing[0], value.to_bytes(len(one.payload), "big")

    for index, one in enumerate(came):
        if one.kind == DATA:
            held.setdefault(one.blocks[0], one.payload)
        elif one.kind == XOR:
            solved = solve(one)
            if solved:
                held[solved[0]] = solved[1]
        if whole is None and len(held) == count:
            whole = index
    data = b"".join(held.get(block, b"") for block in range(count))[:size]
    return whole, data, held


def over_udp(server, client, host, packets, size, said):
    """`packets` are the segments at the server and at the client. `said` has how many datagrams the
    program got: where some came after the last one that it needed, only the program knows which it read.
    The same holds for what the server sent to a group after that."""
    seat, ends, offer, _, _ = native(server, client, host)
    told, _ = lines(ends["said"], b"READY ")
    to = (address(host), int(field(told, b"LISTEN", b"port")))
    group = field(offer, b"TERMS", b"group")
    if group:
        group = (group.rsplit(":", 1)[0], int(group.rsplit(":", 1)[1]))
    stream = bytes.fromhex(field(offer, b"OFFER", b"session"))[4:]
    left, came = (datagrams(one, to, group, stream) for one in packets)
    sent = [one for one in left if one.kind != END]
    block = max(len(one.payload) for one in sent if one.kind == DATA)
    count = (size + block - 1) // block
    whole, data, held = blocks_held(came, count, size)
    # What a group gets once this client has everything is made for the others: whether the server knew
    # it then, only the server knows.
    numbers_sent = max(one.number for one in sent) + 1
    sure = numbers_sent
    if group and whole is not None:
        sure = max((one.number for one in sent if one.time <= came[whole].time), default=-1) + 1
    for_it = said["offered"] if sure <= said["offered"] <= numbers_sent else numbers_sent
    seat.exact["offered"] = for_it
    sent = [one for one in sent if one.number < for_it]
    seat.exact["bytes_server"] = sum(len(one.payload) for one in sent)
    seat.exact["retransmitted"] = sum(len(one.payload) for one in sent if one.again or one.kind == XOR)
    # What the server's queue dropped was in no capture: these figures of all datagrams are not known.
    gone = seat.exact["offered"] - len({one.number for one in sent})
    if gone:
        del seat.exact["bytes_server"], seat.exact["retransmitted"]

    arrived = [one for one in came if one.kind != END]
    index = whole if whole is not None else len(came) - 1
    least = sum(one.kind != END for one in came[:index + 1])
    drops = said["host_rx_drop"] or 0
    delivered = said["delivered"]
    seat.exact["delivered"] = delivered if least - drops <= delivered <= len(arrived) - drops else (least, len(arrived))
    if drops == 0 and isinstance(seat.exact["delivered"], int):
        read = arrived[:delivered]
        stop = came.index(read[-1]) if read else 0
        ends_read = [one.number for one in (came[:stop + 1] if whole is not None else came) if one.kind == END]
        numbers, seen, top, extent = set(), {"duplicate": 0, "reordered": 0}, -1, 0
        for one in read:
            if one.number in numbers:
                seen["duplicate"] += 1
            elif one.number < top:
                seen["reordered"] += 1
                extent = max(extent, top - one.number)
            numbers.add(one.number)
            top = max(top, one.number)
        ended = max([top + 1] + ends_read)
        gaps, run = 0, 0
        for number in range(ended):
            run = 0 if number in numbers else run + 1
            gaps = max(gaps, run)
        lost = ended - len(numbers)
        seat.exact |= seen | {"unique": len(numbers), "lost": lost, "reorder_extent": extent, "loss_burst": gaps,
                              "unheard": seat.exact["offered"] - ended}
        on_wire = {one.number for one in sent}
        at_client = {one.number for one in arrived}
        missing = set(range(ended)) - numbers
        seat.exact["network_lost"] = len(missing & on_wire - at_client)
        seat.exact["local_drop"] = len(missing - on_wire)
    if whole is not None:
        seat.exact["bytes_client"] = len(data)
        seat.exact["sha1"] = hashlib.sha1(data).hexdigest()
        seat.times["seconds_client"] = (came[whole].time - seat.moments["go_came"]) / 1e9
    else:
        seat.exact["bytes_client"] = sum(len(payload) for payload in held.values())
    if gone:
        seat.given["dropped by the server's queue"] = gone
    return seat


def pieces(stream):
    """The blocks that one end of a BitTorrent connection sent: (piece, offset, length), and when."""
    data, at, found = stream.data, 68, []
    while at + 4 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        if at + 4 + length > len(data):
            break
        if length >= 9 and data[at + 4] == 7:
            found.append((*struct.unpack_from(">II", data, at + 5), length - 9, stream.when(at + 4 + length),
                          bytes(data[at + 13:at + 4 + length])))
        at += 4 + length
    return found


def over_swarm(server, client, host, said):
    """Who gave what to this client. `said` has how many bytes came twice: of those that came after it had
    everything, only the program knows whether it read them."""
    seat, _, _, _, _ = native(server, client, host)
    given, parts, came = {}, {}, []
    for key, one in client:
        if key[1][0] == address(host) and one.data.startswith(b"\x13BitTorrent protocol"):
            for piece, begin, length, time, data in pieces(one):
                given[key[0][0]] = given.get(key[0][0], 0) + length
                came.append((time, piece, begin, key[0][0], data))
    again = []
    for time, piece, begin, giver, data in sorted(came):
        if (piece, begin) in parts:
            again.append((time, len(data)))
        else:
            parts[piece, begin] = (time, data, giver)
    whole = max(time for time, _, _ in parts.values())
    least = sum(length for time, length in again if time <= whole)
    possible = {least}
    for length in (length for time, length in again if time > whole):
        possible |= {value + length for value in possible}
    seat.given = given
    seat.exact["sha1"] = hashlib.sha1(b"".join(parts[key][1] for key in sorted(parts))).hexdigest()
    seat.exact["bytes_client"] = sum(len(data) for _, data, _ in parts.values())
    claimed = said["retransmitted"] or 0
    seat.exact["retransmitted"] = claimed if claimed in possible else sorted(possible)
    if least == 0:
        # Of two that came before it had everything, no capture tells which was read first.
        served = sum(len(data) for _, data, giver in parts.values() if giver == SERVER[0])
        seat.exact["bytes_from_server"] = served
        seat.exact["bytes_from_peers"] = seat.exact["bytes_client"] - served
    seat.times["seconds_client"] = (whole - seat.moments["go_came"]) / 1e9
    return seat


def load(folder, clients):
    """What was captured at each host."""
    at = [capture.load(f"{folder}/h0-server.pcapng")]
    return at + [capture.load(f"{folder}/h{host}.pcapng") for host in range(1, clients + 1)]


def observe(at, way, clients, size, document):
    """The seats of a session by host number."""
    found = [capture.streams(one) for one in at]
    seats = {}
    for host in range(1, clients + 1):
        ends = (found[0], found[host], host)
        said = next(one for one in document["results"] if one["client"].startswith(address(host) + ":"))
        if way == "tcp":
            seats[host] = over_tcp(*ends)
        elif way == "http":
            seats[host] = over_http(*ends)
        elif way == "swarm":
            seats[host] = over_swarm(*ends, said)
        else:
            seats[host] = over_udp(*ends, (at[0], at[host]), size, said)
    released = min(seat.moments["go_left"] for seat in seats.values())
    for seat in seats.values():
        if "last_heard" in seat.moments:
            seat.times["seconds_server"] = (seat.moments["last_heard"] - released) / 1e9
    return seats


def spread(seats, name):
    """Last seat's moment minus first seat's, microseconds."""
    moments = [seat.moments[name] for seat in seats.values() if name in seat.moments]
    return (max(moments) - min(moments)) / 1e3 if len(moments) > 1 else None


def filtered(at, clients):
    """UDP datagrams that left for each client and did not come to it."""
    lost = {}
    for host in range(1, clients + 1):
        def to_it(one):
            first = int(one.to[0].split(".")[0])
            return one.protocol == "udp" and (one.to[0] == address(host) or 224 <= first < 240)
        left = sum(to_it(one) and one.source[0] == SERVER[0] for one in at[0])
        came = sum(to_it(one) and one.source[0] == SERVER[0] for one in at[host])
        lost[host] = left - came
    return lost
