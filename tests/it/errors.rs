//! What goes wrong, as its user reads it: every variant of `Error` and every usage error, each made
//! from a real cause and kept in a snapshot. `INSTA_UPDATE=always` writes the snapshots anew.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use gatecast::{
    Error, Fetch,
    internals::{
        client::{ClientReport, FetchConfig, FetchRun},
        net::socket,
        proto::bt::metainfo::Metainfo,
        server::catalog::{self, Catalog},
        text::FileName,
        transport::tcp,
    },
};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::common::{
    self, PATIENCE, Server, entries,
    program::{self, Program, text},
    within,
};

/// Answers each connection by what `answer` makes of its first bytes, for as long as the process
/// lives. With `holds`, it closes no connection first.
fn stranger(holds: bool, answer: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                let mut first = [0; 512];
                let len = stream.read(&mut first).unwrap_or(0);
                if stream.write_all(&answer(&first[..len])).is_ok() && !holds {
                    let _ = stream.shutdown(Shutdown::Write);
                }
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
    addr
}

/// An address where nobody listens: its port is held by a socket of another kind.
fn closed() -> (UdpSocket, SocketAddr) {
    loop {
        let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = held.local_addr().expect("bound");
        if TcpListener::bind(addr).is_ok() {
            return (held, addr);
        }
    }
}

/// `text` with each name in place of its word, where that stands alone.
fn normal(text: &str, words: &[(String, &str)]) -> String {
    words.iter().fold(text.to_owned(), |text, (word, name)| {
        let mut pieces = text.split(word.as_str());
        let mut shown = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let inside = |ch: Option<char>| ch.is_some_and(|ch| ch.is_ascii_alphanumeric());
            let alone = !inside(shown.chars().next_back()) && !inside(piece.chars().next());
            shown += if alone { name } else { word };
            shown += piece;
        }
        shown
    })
}

// --- every variant --------------------------------------------------------------------------------

/// The errors, each as its variant and its message.
#[derive(Default)]
struct Table {
    rows: Vec<(String, String)>,
    words: Vec<(String, &'static str)>,
}

impl Table {
    fn add(&mut self, error: &Error) {
        let debug = format!("{error:?}");
        let variant = debug.split([' ', '{']).next().unwrap_or_default().to_owned();
        self.rows.push((variant, error.to_string()));
    }

    /// What stopped the first client.
    fn add_end(&mut self, ends: &[ClientReport]) {
        self.add(ends[0].error.as_ref().expect("it failed"));
    }

    /// What a fetch of one client from `server` comes to.
    fn add_fetch(&mut self, server: SocketAddr, set: impl FnOnce(&mut FetchConfig)) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut order = FetchConfig::new(vec![server]);
        order.out = folder.path().to_owned();
        set(&mut order);
        self.words.push((server.port().to_string(), "PORT"));
        match FetchRun::new(&order).run(&order, &[&tcp::receive::TCP]) {
            Ok(ends) => self.add_end(&ends),
            Err(error) => self.add(&error),
        }
    }

    fn to_text(&self) -> String {
        let row = |(variant, message): &(String, String)| format!("{variant}\n  {message}\n");
        normal(&self.rows.iter().map(row).collect::<String>(), &self.words)
    }
}

const OFFER: &str = "OFFER file=f bytes=10 sha1=a9993e364706816aba3e25717850c26c9cd0d89d \
                     session=0000000000000001 seat=1 clients=1 via=tcp\n";

/// Everything that the crate can fail with.
fn failures() -> Table {
    let mut table = Table::default();
    let (_held, nobody) = closed();
    table.add_fetch(nobody, |_| {});
    table.add_fetch(nobody, |order| order.retry = Duration::from_millis(1));
    table.add_fetch(stranger(false, |_| Vec::new()), |_| {});
    table.add_fetch(stranger(false, |_| b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".into()), |_| {});
    table.add_fetch(stranger(false, |_| b"\x15\x03\x01\x00\x02\x02\x46".into()), |_| {});
    table.add_fetch(stranger(false, |hello| hello.to_vec()), |_| {});
    table.add_fetch(stranger(false, |_| b"GO bytes=10\n".into()), |_| {});
    let begun = |_: &[u8]| [OFFER.as_bytes(), &b"GO bytes=10\n"[..]].concat();
    table.add_fetch(stranger(true, begun), |order| order.stall = Duration::from_millis(100));
    let other = move |hello: &[u8]| [&begun(hello)[..], b"0123456789"].concat();
    table.add_fetch(stranger(false, other), |_| {});

    let server = Server::new(100, |settings| settings.max_wait = Duration::from_millis(100));
    table.add_fetch(server.addr, |order| order.group = Some(2));
    let unknown = FileName::new("g.bin").expect("plain");
    table.add_fetch(server.addr, |order| order.file = Some(unknown));
    server.stop();

    let folder = tempfile::tempdir().expect("a folder");
    table.words.push((folder.path().display().to_string(), "FOLDER"));
    let file = folder.path().join("f.bin");
    std::fs::write(&file, "abc").expect("room");
    let catalog = Catalog::offer([&file]).expect("there");
    let name = FileName::new("f.bin").expect("plain");
    let source = catalog.open(&name, &catalog::silent).expect("there");
    std::fs::write(&file, "ab").expect("room");
    table.add(&source.unchanged().expect_err("it is shorter"));

    let plain = |request: &[u8]| {
        let body = if request.starts_with(b"HEAD") { "" } else { "abc" };
        format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{body}").into()
    };
    let web = stranger(false, plain);
    table.words.push((web.port().to_string(), "PORT"));
    let url = format!("http://{web}/f.bin");
    let out = folder.path().to_str().expect("UTF-8");
    let output = program::run(folder.path(), &["fetch", &url, "--out", out]);
    let said = text(&output.stderr).trim_end().trim_start_matches("gatecast: ").to_owned();
    table.rows.push(("Unproven".to_owned(), said));

    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = held.local_addr().expect("bound");
    let error = socket::listen(addr).expect_err("it is held").to_string();
    let (before, holder) = error.split_once("process ").expect("it names the process");
    let (_, after) = holder.split_once("; ").expect("a next step");
    table.words.push((addr.port().to_string(), "PORT"));
    table.rows.push(("Refused".to_owned(), format!("{before}process PID (NAME); {after}")));

    let usage = Fetch::host("127.0.0.1:99999").out(folder.path()).run();
    table.add(&usage.expect_err("no such port"));
    let (config, run) = {
        let mut config = FetchConfig::new(vec![stranger(true, |_| Vec::new())]);
        config.out = folder.path().to_owned();
        let run = FetchRun::new(&config);
        (config, run)
    };
    run.stop();
    table.add_end(&run.run(&config, &[]).expect("it begins"));
    table
}

#[test]
fn every_variant_of_error_says_value_place_and_next_step() {
    within(PATIENCE * 2, || {
        let table = failures();
        let made: BTreeSet<&str> = table.rows.iter().map(|(variant, _)| &**variant).collect();
        let code = syn::parse_file(include_str!("../../src/error.rs")).expect("Rust");
        let variants = code.items.iter().find_map(|item| match item {
            syn::Item::Enum(item) if item.ident == "Error" => Some(&item.variants),
            _ => None,
        });
        for variant in variants.expect("the enum") {
            let name = variant.ident.to_string();
            assert!(made.contains(&*name), "no test makes Error::{name} from a real cause");
        }
        insta::assert_snapshot!("variants", table.to_text());
    });
}

// --- every usage error ----------------------------------------------------------------------------

/// What is typed. Words in capitals are ports, of: nobody, a program that listens, a server of SSH,
/// one that closes at once, and gatecast servers of two files and of one file by TCP.
const TYPED: &str = "\
fetch 127.0.0.1:NOBODY
fetch 127.0.0.1:NOBODY --clients 25
list 127.0.0.1:NOBODY
watch 127.0.0.1:NOBODY
fetch 127.0.0.1:SSH
fetch 127.0.0.1:SSH --clients 25
list 127.0.0.1:SSH
watch 127.0.0.1:SSH
fetch 127.0.0.1:SSH f.bin --via http
fetch http://127.0.0.1:SSH/f.bin
list 127.0.0.1:SHUT
watch 127.0.0.1:SHUT
watch 127.0.0.1:TWO
fetch 127.0.0.1:99999
fetch 127.0.0.1:0
fetch 127.0.0.1:http
fetch 127.0.0.1:8080/text.txt
list http://127.0.0.1:8080/
fetch http://127.0.0.1:8080/
fetch https://127.0.0.1/f.bin --via http
fetch http://127.0.0.1:8080/f.bin.torrent
fetch http://127.0.0.1:8080/f.bin g.bin
fetch http://127.0.0.1:8080/f.bin --via udp
fetch http://127.0.0.1:8080/f.bin --key private.key
fetch http://127.0.0.1:8080/f.bin --lab-tcp
fetch 127.0.0.1:NOBODY --blocks b.csv
fetch 192.168..10
fetch none.torrent
fetch 127.0.0.1:TWO
fetch 127.0.0.1:TWO --clients 25
fetch 127.0.0.1:TWO --via http
fetch 127.0.0.1:TWO c.bin
fetch 127.0.0.1:TWO a.bin --sha1 0000000000000000000000000000000000000000
fetch 127.0.0.1:TCP --via udp
fetch 127.0.0.1:NOBODY a/b
fetch 127.0.0.1:NOBODY --out /proc/nope
fetch 127.0.0.1:NOBODY --out f.bin
fetch 127.0.0.1:NOBODY --out -
fetch 127.0.0.1:NOBODY --out - --clients 2
fetch 127.0.0.1:NOBODY --out - --resume
fetch 127.0.0.1:NOBODY --out - --json
fetch 127.0.0.1:NOBODY --out - --events
fetch 127.0.0.1:NOBODY --out - --lab
fetch none.torrent --out -
fetch 127.0.0.1:NOBODY --to f.bin
fetch 127.0.0.1:NOBODY --yes-overwrite f.bin
fetch 127.0.0.1:NOBODY --to f.bin --yes-overwrite two/a.bin
fetch 127.0.0.1:NOBODY --to f.bin --yes-overwrite f.bin --clients 2
fetch 127.0.0.1:NOBODY --to f.bin --yes-overwrite f.bin --resume
fetch 127.0.0.1:NOBODY --to f.bin --yes-overwrite f.bin --out two
fetch 127.0.0.1:NOBODY --to two --yes-overwrite two
fetch 127.0.0.1:NOBODY --to /dev/null --yes-overwrite /dev/null
fetch 127.0.0.1:NOBODY --to none --yes-overwrite none
fetch none.torrent --to f.bin --yes-overwrite f.bin
fetch 127.0.0.1:NOBODY --clients 0
fetch 127.0.0.1:NOBODY --clients 10001
fetch 127.0.0.1:NOBODY --name=
fetch 127.0.0.1:NOBODY --via quic
fetch 127.0.0.1:NOBODY --retry 5
fetch 127.0.0.1:NOBODY --stall-limit 0s
fetch 127.0.0.1:NOBODY --unit kbit
fetch 127.0.0.1:NOBODY --sha1 abc
fetch 127.0.0.1:NOBODY --copy fast
fetch 127.0.0.1:NOBODY --key open.key
fetch 127.0.0.1:NOBODY --key short.key
serve
serve missing.bin
serve nested
serve f.bin same/f.bin
serve two --file c.bin
serve f.bin --clients 2 --quorum 3
serve f.bin --listen 127.0.0.1:BUSY
serve f.bin --port 99999
serve f.bin --listen here:9000
serve f.bin --listen 192.0.2.1:0
serve f.bin --log-dir /proc/nope
serve f.bin --log-dir f.bin
serve f.bin --via swarm --tracker-file /proc/nope/x
serve f.bin --congestion nope
serve f.bin --rate 100MB
serve f.bin --max-wait 60
serve f.bin --datagram 10
serve f.bin --multicast-group 10.0.0.1:5000
serve f.bin --token short
serve f.bin --key private.key --open ftp
serve f.bin --key private.key --lab-udp
run two
run nested
run missing.bin
run --size 100
run --size 1kB --log-dir /proc/nope
run --size 1kB --keep f.bin
relay --listen 70000
relay --json --events
relay --token short
relay --log-dir /proc/nope
relay --input 127.0.0.1:NOBODY --port 0
relay --input 127.0.0.1:5000 --input 127.0.0.1:5001 --input 127.0.0.1:5000 --port 0
relay --input 127.0.0.1:1 --input 127.0.0.1:2 --input 127.0.0.1:3 --input 127.0.0.1:4 --input 127.0.0.1:5 --port 0
relay --play f.bin
relay --play none.ts
relay --play two
relay --play f.bin --input 127.0.0.1:5000
relay --loop
relay --segment 5s
relay --record f.bin
relay --record d --segment 0s
watch 127.0.0.1:NOBODY --port 80
watch 127.0.0.1:NOBODY --via chain
watch 127.0.0.1:NOBODY --launch --player 127.0.0.1:5000
relay --multicast-group 10.0.0.1:5000
relay --multicast-interface 10.0.0.1
watch 127.0.0.1:NOBODY --record /proc/nope/x
report f.bin
report f.bin --errors --json
calibrate --clients 1
serve f.bin --roster empty
serve f.bin --again empty
plan --size 0B --clients 2
plan --clients 0
plan --size 1MB --clients 20000 --simulate
study --clients 0
study --clients 60000
study --clients x
study --size 0B
study --via tcp,tcp
study --via quic
study --runs 4000000
star up --host 9=x
star up --loss 200%
star run --capture d --snap-length 63 -- true
study --snap-length 300
study --capture d --room f.bin
star up --hosts 2 --host 9=1mbit
study --hosts-from none --rate 1mbit,2mbit
diff one.json two.json --threshold x
study --clients 3 --room f.bin
study --clients 1 --room f.bin --via nginx
fetsh 127.0.0.1
serve f.bin --cleints 3
";

/// Usage errors that no command line makes: of the library, of a star, of logs, of the lab's menu.
const ELSEWHERE: [&str; 13] = [
    "the address to listen on names no host",
    "the server's name has no address",
    "this host has no address",
    "choose a file first: config FILE N",
    "' is not on the menu",
    "' is not FILE N",
    "outcome",
    "no program",
    "a plot is of sessions, and these are relay logs",
    "': give each its own --name, or a --roster",
    "; give a --roster",
    ": it is another file",
    ": the log holds no session",
];

/// A folder with what the commands name.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a folder");
    let at = |name: &str| place.path().join(name);
    for folder in ["two", "same", "nested/sub"] {
        std::fs::create_dir_all(at(folder)).expect("room");
    }
    for file in ["f.bin", "two/a.bin", "two/b.bin", "same/f.bin", "nested/sub/f.bin"] {
        std::fs::write(at(file), "abc").expect("room");
    }
    std::fs::write(at("empty"), "").expect("room");
    for (key, bytes, mode) in [
        ("private.key", "a key of many bytes", 0o600),
        ("open.key", "a key of many bytes", 0o644),
        ("short.key", "short", 0o600),
    ] {
        std::fs::write(at(key), bytes).expect("room");
        std::fs::set_permissions(at(key), PermissionsExt::from_mode(mode)).expect("ours");
    }
    place
}

/// What a command printed to standard error, without the reminder of its usage.
fn message(stderr: &str) -> String {
    let lines = stderr.lines().take_while(|line| !line.starts_with("Usage:"));
    let told = |line: &&str| !line.is_empty() && !line.starts_with("For more information");
    // A warning has its time before it.
    let plain = |line: &str| line.rsplit_once(" WARN ] ").map_or(line, |(_, told)| told).to_owned();
    lines.filter(told).map(|line| format!("  {}\n", plain(line))).collect()
}

/// What the system says of a name that it cannot find, and who holds a port, differ by machine.
fn without_system(message: &str) -> String {
    let mut message = message.to_owned();
    for (begin, end, name) in [
        ("cannot find the host (192.168..10): ", "; check", "SYSTEM"),
        ("in use by process ", "; end it", "PID (NAME)"),
    ] {
        if let Some((before, rest)) = message.split_once(begin)
            && let Some((_, after)) = rest.split_once(end)
        {
            message = format!("{before}{begin}{name}{end}{after}");
        }
    }
    message
}

#[test]
fn every_usage_error_is_told_with_its_value() {
    within(PATIENCE * 4, || {
        let place = place();
        let (held, nobody) = closed();
        let busy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let ssh = stranger(false, |_| b"SSH-2.0-OpenSSH_9.2p1\r\n".into());
        let shut = stranger(false, |_| Vec::new());
        let servers = self::place();
        let (_two, two) = Program::serve(servers.path(), &["two"]);
        let (_tcp, tcp) = Program::serve(servers.path(), &["f.bin", "--via", "tcp"]);
        let port = |addr: &str| addr.rsplit_once(':').expect("a port").1.to_owned();
        let ports = [
            (nobody.port().to_string(), "NOBODY"),
            (busy.local_addr().expect("bound").port().to_string(), "BUSY"),
            (ssh.port().to_string(), "SSH"),
            (shut.port().to_string(), "SHUT"),
            (port(&two), "TWO"),
            (port(&tcp), "TCP"),
        ];
        let before = entries(place.path());
        let folder = place.path().display().to_string();
        let mut shown = String::new();
        for typed in TYPED.lines() {
            let words = ports.iter().fold(typed.to_owned(), |typed, (port, name)| {
                typed.replace(&format!(":{name}"), &format!(":{port}"))
            });
            let words: Vec<&str> = words.split(' ').collect();
            let output = program::run(place.path(), &words);
            let code = output.status.code().expect("no signal");
            assert!([1, 2].contains(&code), "{typed}: {code}: {}", program::output_text(&output));
            let told = message(text(&output.stderr)).replace(&folder, "FOLDER");
            let told = without_system(&normal(&told, &ports));
            shown += &format!("$ gatecast {typed}\n{told}  [{code}]\n");
        }
        assert_eq!(entries(place.path()), before, "nothing was made");
        drop(held);
        insta::assert_snapshot!("usage", shown);
    });
}

/// The usage errors and invalid values that the code names.
fn named_in_code(tokens: TokenStream, found: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is = |at: usize, words: &[&str]| {
        words
            .iter()
            .enumerate()
            .all(|(n, word)| tokens.get(at + n).is_some_and(|token| token.to_string() == *word))
    };
    let mut at = 0;
    while at < tokens.len() {
        if is(at, &["mod", "tests"]) {
            at += 3;
            continue;
        }
        let makes = is(at, &["Error", ":", ":", "usage"])
            || is(at, &["Error", ":", ":", "Usage"])
            || is(at, &["InvalidValue", ":", ":", "new"]);
        match tokens.get(at + 4) {
            Some(TokenTree::Group(group)) if makes => {
                found.extend(literals(group.stream()).into_iter().next());
            }
            _ => {}
        }
        if let TokenTree::Group(group) = &tokens[at]
            && group.delimiter() != Delimiter::None
        {
            named_in_code(group.stream(), found);
        }
        at += 1;
    }
}

fn literals(tokens: TokenStream) -> Vec<String> {
    let mut found = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => found.extend(literals(group.stream())),
            TokenTree::Literal(literal) => {
                if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                    found.push(text.value());
                }
            }
            _ => {}
        }
    }
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        match path.extension() {
            _ if path.is_dir() => sources(&path, found),
            Some(kind) if kind == "rs" && !path.ends_with("tests.rs") => found.push(path),
            _ => {}
        }
    }
}

/// A new usage error needs a command in [`TYPED`] that makes it.
#[test]
fn every_usage_error_of_the_code_has_a_snapshot() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let snapshot = root.join("tests/it/snapshots/it__errors__usage.snap");
    let shown = std::fs::read_to_string(snapshot).expect("kept");
    let (mut files, mut named) = (Vec::new(), Vec::new());
    sources(&root.join("src"), &mut files);
    for file in files {
        let code = std::fs::read_to_string(&file).expect("readable");
        named_in_code(code.parse().expect("Rust"), &mut named);
    }
    assert!(named.len() > 30, "{named:?}");
    let missing: Vec<_> = named
        .iter()
        .map(|text| text.split(['{', '}']).max_by_key(|piece| piece.len()).unwrap_or_default())
        .filter(|piece| !shown.contains(piece) && !ELSEWHERE.iter().any(|e| e.contains(piece)))
        .collect();
    assert!(missing.is_empty(), "no command makes {missing:#?}");
}

// --- mistakes that end well -----------------------------------------------------------------------

#[test]
fn group_of_another_size_than_the_servers_is_told_once() {
    within(PATIENCE, || {
        let place = place();
        let (_server, addr) = Program::serve(place.path(), &["f.bin", "--clients", "2"]);
        let fetch = |group| {
            let arguments = ["fetch", &addr, "--clients", "2", "--group", group];
            let output = program::run(place.path(), &arguments);
            assert!(output.status.success(), "{output:?}");
            text(&output.stderr).to_owned()
        };
        let told = fetch("5");
        let warning = "the session has 2 clients, as the server says, not 5 (--group)";
        assert_eq!(told.matches(warning).count(), 1, "{told}");
        assert!(!fetch("2").contains("--group"), "the number is right");
    });
}

#[test]
fn bare_port_listens_at_every_address() {
    within(PATIENCE, || {
        let place = place();
        for option in ["--listen", "--port"] {
            let arguments = ["serve", "f.bin", option, "0"];
            let server = Program::start(&mut program::gatecast(place.path(), &arguments));
            common::until("it listens", || server.stderr().contains("listening on 0.0.0.0:"));
        }
    });
}

#[test]
fn client_of_http_joins_group_of_curl() {
    within(PATIENCE, || {
        let place = place();
        let (_server, addr) = Program::serve(place.path(), &["f.bin", "--clients", "2"]);
        let addr: SocketAddr = addr.parse().expect("an address");
        let curl = thread::spawn(move || common::http::get(addr, "/files/f.bin?gate"));
        let arguments = ["fetch", &addr.to_string(), "f.bin", "--via", "http"];
        let output = program::run(place.path(), &arguments);
        assert!(output.status.success(), "{}", program::output_text(&output));
        assert_eq!(curl.join().expect("no panic"), b"abc");
    });
}

#[test]
fn server_tells_that_bittorrent_program_waits_for_gate() {
    within(PATIENCE * 2, || {
        let place = place();
        let arguments = ["f.bin", "--via", "swarm", "--clients", "2"];
        let (server, addr) = Program::serve(place.path(), &arguments);
        // Outside of a session it would be served.
        let _first = Program::fetch(place.path(), &addr, "first", &[]);
        common::until("a muster", || server.stderr().contains("1 of 2 clients ready"));
        let addr: SocketAddr = addr.parse().expect("an address");
        let torrent = Metainfo::decode(&common::http::get(addr, "/f.bin.torrent"));
        let torrent = torrent.expect("a torrent");
        let _peers = [b"-XX0001-abcdefghijkl", b"-XX0001-bbcdefghijkl"]
            .map(|id| common::swarm::Raw::join(addr, &torrent, *id));
        let told = "a BitTorrent program waits for 'f.bin' until clients are released";
        common::until("it is told", || server.stderr().contains(told));
        assert_eq!(server.stderr().matches(told).count(), 1, "once");
    });
}
