"""A peer of python-libtorrent, and a tracker for it and for aria2, for the study and the tests.

    torrent_peer.py tracker ADDRESS PORT
    torrent_peer.py peer TORRENT FOLDER ADDRESS PORT

A peer takes what FOLDER has of the file as its own, unchokes everybody, writes the time into
FOLDER/done once it has everything, and goes on until it is ended.
"""

import socket
import sys
import time


def tracker(address, port):
    import http.server
    import urllib.parse

    peers = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query, encoding="latin-1")
            me = socket.inet_aton(self.client_address[0]) + int(query["port"][0]).to_bytes(2, "big")
            others = b"".join(peers - {me})
            peers.add(me)
            body = b"d8:intervali5e12:min intervali5e5:peers%d:%se" % (len(others), others)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer((address, int(port)), Handler).serve_forever()


def peer(torrent, folder, address, port):
    import libtorrent

    session = libtorrent.session({
        "listen_interfaces": f"{address}:{port}",
        "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        "enable_incoming_utp": False, "enable_outgoing_utp": False,
        "allow_multiple_connections_per_ip": True,
        "choking_algorithm": 0, "unchoke_slots_limit": -1,
        "alert_mask": 0,
    })
    handle = session.add_torrent({"ti": libtorrent.torrent_info(torrent), "save_path": folder})
    done = False
    while True:
        if not done and handle.status().is_seeding:
            with open(f"{folder}/done", "w") as file:
                file.write(f"{time.time()}\n")
            done = True
        time.sleep(0.02)


{"tracker": tracker, "peer": peer}[sys.argv[1]](*sys.argv[2:])
