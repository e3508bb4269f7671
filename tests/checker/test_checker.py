"""Tests of the checker itself, with packets and captures made by hand."""

import struct
import unittest

import capture
import checker
import sessions

HERE, THERE = ("10.77.0.1", 8080), ("10.77.0.2", 40000)


def block(kind, body, order="<"):
    length = 12 + len(body)
    return struct.pack(order + "II", kind, length) + body + struct.pack(order + "I", length)


def pad(data):
    return data + bytes(-len(data) % 4)


def option(code, data, order="<"):
    return struct.pack(order + "HH", code, len(data)) + pad(data)


def head(order="<", link=1, unit=9):
    section = block(capture.SECTION, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)
    unit = option(9, bytes([unit]), order) + option(0, b"", order)
    return section + block(capture.INTERFACE, struct.pack(order + "HHI", link, 0, 256) + unit, order)


def packet(time, data, whole=None, order="<", interface=0):
    fixed = struct.pack(order + "5I", interface, time >> 32, time & 0xFFFFFFFF, len(data), whole or len(data))
    return block(capture.PACKET, fixed + pad(data), order)


def tail(received, dropped=0, order="<"):
    said = option(4, struct.pack(order + "Q", received), order) + option(5, struct.pack(order + "Q", dropped), order)
    return block(capture.STATISTICS, struct.pack(order + "III", 0, 0, 0) + said, order)


def ip(protocol, source, to, inner, fragment=0x4000):
    addresses = b"".join(bytes(map(int, one[0].split("."))) for one in (source, to))
    return bytes(12) + b"\x08\x00" + struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(inner), 7, fragment, 64, protocol, 0) \
        + addresses + inner


def udp(source, to, payload):
    return ip(17, source, to, struct.pack(">HHHH", source[1], to[1], 8 + len(payload), 0) + payload)


def tcp(source, to, seq, payload=b"", flags=16):
    return ip(6, source, to, struct.pack(">HHIIBBHHH", source[1], to[1], seq, 0, 0x50, flags, 1000, 0, 0) + payload)


def numbered(kind, number, body, time=0):
    data = sessions.MAGIC + bytes([kind]) + bytes(4) + struct.pack(">II", number, 0) + body
    return sessions.Datagram(capture.Segment(time, "udp", HERE, THERE, data, len(data)))


def data_of(number, block, payload, again=0):
    return numbered(sessions.DATA, number, struct.pack(">IHH", block, again, len(payload)) + payload)


class Reader(unittest.TestCase):
    def test_both_byte_orders_and_units_are_read(self):
        for order in "<>":
            for unit, time, nanoseconds in ((9, 1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
                                            (6, 1_700_000_000_123_456, 1_700_000_000_123_456_000),
                                            (0x80 | 10, 1024, 1_000_000_000)):
                file = head(order, unit=unit) + packet(time, b"abcde", 90, order) + tail(1, 0, order)
                self.assertEqual(capture.read(file), [capture.Frame(nanoseconds, 90, b"abcde")])

    def test_unknown_blocks_are_passed_over(self):
        file = head() + block(0x0BAD, b"abcd") + packet(1, b"a") + block(4, b"") + tail(1)
        self.assertEqual(len(capture.read(file)), 1)

    def test_a_capture_that_is_not_whole_is_refused(self):
        good = head() + packet(1, b"abcd") + tail(1)
        self.assertEqual(len(capture.read(good)), 1)
        for says, file in (
            ("does not begin", b""),
            ("does not begin", b"\xd4\xc3\xb2\xa1" + bytes(20)),
            ("byte order", good[:8] + b"abcd" + good[12:]),
            ("cut at byte", good[:-tail(1).__len__()] + b"\x05\0\0\0"),
            ("a block of", good[:-4]),
            ("two lengths", good[:-4] + b"\0\0\0\0"),
            ("no statistics", head() + packet(1, b"abcd")),
            ("2 packets of 3", head() + packet(1, b"a") + packet(2, b"b") + tail(3)),
            ("lost before", head() + packet(1, b"a") + tail(1, 2)),
            ("link type 113", head(link=113) + tail(0)),
            ("a packet of 4 of 3", head() + packet(1, b"abcd", 3) + tail(1)),
            ("a packet of", head() + packet(1, b"abcd", interface=1) + tail(1)),
            ("short block of a packet", head() + block(6, b"abcd") + tail(0)),
            ("a block of 4294967292", good + struct.pack("<II", 9, 0xFFFFFFFC) + bytes(4)),
        ):
            with self.assertRaisesRegex(capture.CaptureError, says):
                capture.read(file)

    def test_every_cut_of_a_capture_is_refused(self):
        good = head() + packet(1, b"abcd") + tail(1)
        for length in range(len(good)):
            with self.assertRaises(capture.CaptureError):
                capture.read(good[:length])

    def test_udp_and_tcp_are_told_apart_and_others_left_out(self):
        one = capture.segment(capture.Frame(5, 99, udp(HERE, THERE, b"hello") + b"padding"))
        self.assertEqual((one.protocol, one.source, one.to, one.payload, one.length, one.time),
                         ("udp", HERE, THERE, b"hello", 5, 5))
        one = capture.segment(capture.Frame(5, 99, tcp(THERE, HERE, 77, b"abc", 17)))
        self.assertEqual((one.protocol, one.seq, one.payload, one.syn, one.fin), ("tcp", 77, b"abc", False, True))
        arp = bytes(12) + b"\x08\x06" + bytes(28)
        self.assertIsNone(capture.segment(capture.Frame(5, len(arp), arp)))
        self.assertIsNone(capture.segment(capture.Frame(5, 54, ip(1, HERE, THERE, bytes(20)))))

    def test_a_cut_payload_keeps_its_length_on_the_wire(self):
        whole = udp(HERE, THERE, bytes(1000))
        one = capture.segment(capture.Frame(0, len(whole), whole[:64]))
        self.assertEqual((len(one.payload), one.length), (22, 1000))

    def test_impossible_packets_are_refused(self):
        short = udp(HERE, THERE, b"hello")
        for says, data, whole in (("fragment", ip(17, HERE, THERE, bytes(8), 0x2000), 42),
                                  ("a frame of 40", short, 40),
                                  ("room for", short[:39] + b"\x63" + short[40:], len(short)),
                                  ("TCP header", tcp(HERE, THERE, 1)[:46] + b"\xf0" + bytes(7), 54)):
            with self.assertRaisesRegex(capture.CaptureError, says):
                capture.segment(capture.Frame(0, whole, data))


class Streams(unittest.TestCase):
    def stream(self, *parts, start=0xFFFFFFFE):
        one = capture.Stream()
        one.add(capture.Segment(0, "tcp", HERE, THERE, b"", 0, (start - 1) & 0xFFFFFFFF, syn=True))
        for time, at, payload in parts:
            one.add(capture.Segment(time, "tcp", HERE, THERE, payload, len(payload), (start + at) & 0xFFFFFFFF))
        return one

    def test_order_gaps_repeats_and_wrapping_numbers_are_put_right(self):
        one = self.stream((1, 0, b"ab"), (2, 4, b"ef"), (3, 0, b"ab"), (4, 1, b"bcd"), (5, 6, b"g"))
        self.assertEqual(bytes(one.data), b"abcdefg")
        self.assertEqual([one.when(count) for count in (1, 2, 3, 6, 7)], [1, 1, 4, 4, 5])
        self.assertEqual(one.again, 2)

    def test_a_hole_ends_what_is_known(self):
        self.assertEqual(bytes(self.stream((1, 0, b"ab"), (2, 3, b"d")).data), b"ab")

    def test_a_stream_without_its_begin_or_with_cut_payload_is_refused(self):
        one = capture.Stream()
        with self.assertRaisesRegex(capture.CaptureError, "began before"):
            one.add(capture.Segment(0, "tcp", HERE, THERE, b"a", 1, 7))
        with self.assertRaisesRegex(capture.CaptureError, "snap length"):
            self.stream((1, 0, b"a")).add(capture.Segment(0, "tcp", HERE, THERE, b"a", 9, 7))


class Figures(unittest.TestCase):
    def test_combined_datagrams_give_the_block_that_lacks(self):
        xor = bytes(a ^ b for a, b in zip(b"aaaa", b"bb\0\0"))
        gap = numbered(sessions.XOR, 2, struct.pack(">BBHI", 2, 0, 4, 0) + b"\x00" + xor)
        self.assertEqual(gap.blocks, [0, 1])
        whole, data, _ = sessions.blocks_held([data_of(0, 0, b"aaaa"), gap], 2, 6)
        self.assertEqual((whole, data), (1, b"aaaabb"))
        self.assertIsNone(sessions.blocks_held([gap], 2, 6)[0])

    def test_a_gap_of_two_bytes_is_read(self):
        body = struct.pack(">BBHI", 2, 0, 1, 5) + b"\x80\x01" + b"x"
        self.assertEqual(numbered(sessions.XOR, 0, body).blocks, [5, 5 + 128 + 1])

    def test_pieces_of_a_peer_are_found_between_other_messages(self):
        def message(kind, body):
            return struct.pack(">IB", 1 + len(body), kind) + body
        stream = capture.Stream()
        stream.data += b"\x13BitTorrent protocol" + bytes(48) + message(4, bytes(4)) + bytes(4) \
            + message(7, struct.pack(">II", 3, 16384) + b"abc") + message(7, struct.pack(">II", 4, 0) + b"de") + b"\0\0"
        stream.grown.append((len(stream.data), 9))
        self.assertEqual(sessions.pieces(stream), [(3, 16384, 3, 9, b"abc"), (4, 0, 2, 9, b"de")])

    def test_a_wrong_figure_is_refused(self):
        exact = checker.Figure("exact", "lost", 3, 3)
        self.assertTrue(exact.holds())
        for said in (2, 4, None, 3.5):
            self.assertFalse(checker.Figure("exact", "lost", 3, said).holds(), said)
        self.assertFalse(checker.Figure("exact", "sha1", "ab", "ba").holds())

    def test_each_planted_fault_is_one_figure_of_the_document(self):
        seats = [{"name": "h1", "lost": 3, "late": None}, {"name": "h2", "lost": 0, "late": 2}]
        document = {"results": seats, "file": {"sha1": "0123"}}
        plants = dict(checker.altered(document, ["late", "lost", "sha1"]))
        self.assertEqual(sorted(plants), ["h1 lost", "h2 late", "h2 lost", "sha1"])
        self.assertEqual(plants["h1 lost"]["results"][0]["lost"], 4)
        self.assertEqual(plants["sha1"]["file"]["sha1"], "3210")
        self.assertEqual(document["results"][0]["lost"], 3, "the document itself is as it was")

    def test_seconds_and_skew_have_their_bounds(self):
        for kind, wire, near, far in (("seconds", 0.1, 0.1019, 0.1021), ("seconds", 2.0, 2.0099, 1.9899),
                                      ("skew", 100, 249, 251)):
            self.assertTrue(checker.Figure(kind, "", wire, near).holds())
            self.assertFalse(checker.Figure(kind, "", wire, far).holds())
            self.assertFalse(checker.Figure(kind, "", wire, None).holds())

    def test_a_seed_is_always_the_same_session_and_six_have_all_ways(self):
        plans = [checker.draw(seed) for seed in range(60)]
        self.assertEqual(plans, [checker.draw(seed) for seed in range(60)])
        self.assertEqual({plan.way for plan in plans[7:13]}, set(checker.WAYS))
        self.assertEqual({plan.loss for plan in plans}, {"0", "0.5%", "2%"})


if __name__ == "__main__":
    unittest.main()
