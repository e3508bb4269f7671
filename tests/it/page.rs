//! The page in a real browser: before, during and after a session, released by its button.

use std::{fs, net::TcpStream, path::PathBuf, sync::Arc, thread, time::Duration};

use serde_json::{Value, json};

use gatecast::internals::{
    error::Result,
    http,
    http::{Documents, HttpConfig},
    proto::{hosts::HostList, native::FromClient},
    report::{csv, json, scaling},
    server::{
        config::{AutoMode, ServerConfig},
        gate::SeatConnection,
        transport::{SeatDetail, SendJob, SendPlan, SendResult, SendSession, Transport},
    },
    session::{SeatId, Via},
    transport::tcp,
};

use crate::{
    common,
    common::{Server, browser::Browser, bytes_per_second, have, installed, turn::in_turn, until},
};

/// The size of a small desk screen, pixels.
const DESK: (u32, u32) = (1100, 800);

/// The folder for pictures of the page; none unless the environment names one.
fn pictures() -> Option<PathBuf> {
    std::env::var_os("GATECAST_PICTURES").map(PathBuf::from)
}

pub(crate) fn have_browser() -> bool {
    have("chromium with chromedriver", installed("chromedriver") && installed("chromium"))
}

/// The texts on the page that cannot be read: cut short, or outside of the window without a hint
/// that says where to scroll.
const UNREADABLE: &str = "const cut = [];
for (const e of document.querySelectorAll('h1,h2,h3,p,b,a,code,button,figcaption,span,small,td')) {
  const place = e.getBoundingClientRect();
  if (!place.width || !e.textContent.trim()) continue;
  const clips = getComputedStyle(e).overflowX === 'hidden' && e.scrollWidth > e.clientWidth;
  const box = e.closest('.scroll');
  const told = box && !box.previousElementSibling.hidden;
  const outside = place.left < 0 || place.right > innerWidth + 1;
  if (clips || outside && !told) cut.push(e.textContent);
}
return cut";

/// Takes pictures of the page in the size of a desk screen and of a phone, light and dark.
pub(crate) fn take_pictures(browser: &Browser, name: &str) {
    for (place, width, height) in [("desk", DESK.0, DESK.1), ("phone", 400, 844)] {
        for scheme in ["light", "dark"] {
            browser.set_view(width, height, scheme);
            let picture = browser.picture();
            assert!(picture.starts_with(b"\x89PNG"));
            if let Some(folder) = pictures() {
                fs::create_dir_all(&folder).expect("room");
                let path = folder.join(format!("{name}-{place}-{scheme}.png"));
                fs::write(path, picture).expect("room");
            }
            // Nothing may be wider than the window, whatever the names of the clients are.
            let wide = browser.script("return document.documentElement.scrollWidth - innerWidth");
            assert!(wide.as_i64().expect("a number") <= 0, "{name} at {place}: {wide} too wide");
            if place == "phone" {
                assert_eq!(browser.script(UNREADABLE), json!([]), "{name}");
            }
        }
    }
    browser.set_view(DESK.0, DESK.1, "light");
}

/// The colour of the first element that `selector` finds.
fn colour(browser: &Browser, selector: &str) -> Value {
    browser.script(&format!("return getComputedStyle(document.querySelector('{selector}')).color"))
}

/// Asserts that what `selector` finds is red, on a light ground and on a dark one.
pub(crate) fn is_red(browser: &Browser, selector: &str) {
    for (scheme, red) in [("dark", "rgb(255, 138, 128)"), ("light", "rgb(179, 38, 30)")] {
        browser.set_view(DESK.0, DESK.1, scheme);
        assert_eq!(colour(browser, selector), red, "{selector}, {scheme}");
    }
}

/// The texts of all that `selector` finds.
pub(crate) fn texts(browser: &Browser, selector: &str) -> Vec<String> {
    let all = browser.script(&format!(
        "return [...document.querySelectorAll('{selector}')].map(e => e.textContent)"
    ));
    all.as_array().expect("a list").iter().map(|text| text.as_str().expect("text").into()).collect()
}

fn face(set: impl FnOnce(&mut ServerConfig), bytes: u64) -> Server {
    Server::with(bytes, set, |host| {
        let options = HttpConfig {
            documents: Documents {
                json: Some(|record| json::session(record, None)),
                csv: Some(csv::transfers),
                svg: Some(|records| scaling::rates(records).to_svg()),
            },
            ..HttpConfig::default()
        };
        http::serve(tcp::serve(host).expect("TCP"), options).expect("HTTP")
    })
}

const HOSTILE: &str = "<img%20src=x%20onerror=pwned=1>%E2%80%AE%1B[2J%C2%9B";

#[test]
fn browser_names_who_of_a_roster_is_missing() {
    if !have_browser() {
        return;
    }
    in_turn("page", Duration::from_secs(180), || {
        let list = HostList::parse("pc-01\npc-02\npc-03", "room").expect("a list");
        let server = face(
            |settings| {
                settings.clients = Some(list.clients());
                settings.roster = Some(Arc::new(list));
            },
            100_000,
        );
        let folder = tempfile::tempdir().expect("a folder");
        let browser = Browser::start(folder.path());
        browser.open(&format!("http://{}/", server.addr));
        let client = server.fetch("pc-02", |_| {});
        browser.until_shows("Missing: pc-01, pc-03");
        browser.until_shows("1 of 3 ready");
        assert_eq!(texts(&browser, ".seats .missing .name"), ["1 pc-01", "3 pc-03"]);
        assert_eq!(texts(&browser, ".seats .ready .name"), ["2 pc-02"]);
        server.running().lobby().release_now();
        browser.until_shows("2 clients missing: pc-01, pc-03");
        assert!(client.join().expect("no panic")[0].path.is_some());
        server.stop();
    });
}

#[test]
fn browser_shows_and_releases_a_session() {
    if !have_browser() {
        return;
    }
    in_turn("page", Duration::from_secs(180), || {
        let server = face(
            |settings| {
                settings.clients = Some(25);
                settings.rate = bytes_per_second(12_000_000);
            },
            1_000_000,
        );
        let folder = tempfile::tempdir().expect("a folder");
        let browser = Browser::start(folder.path());
        browser.open(&format!("http://{}/", server.addr));
        browser.until_shows("Waiting for 25 clients: nobody is at the gate");
        browser.until_shows("A file is sent to all when 25 clients have asked for it.");
        browser.until_shows(&format!("gatecast fetch {} f.bin", server.addr));
        browser.until_shows(&format!("curl -fO 'http://{}/files/f.bin?gate'", server.addr));
        let interactive = browser.script(
            "const t = performance.getEntriesByType('navigation')[0]; return [t.domInteractive, t.transferSize]",
        );
        println!("interactive after {} ms, {} bytes", interactive[0], interactive[1]);
        take_pictures(&browser, "idle");

        let mut clients: Vec<_> = (0..22)
            .map(|n| server.fetch(&format!("pc-{n:02}"), |order| order.group = Some(25)))
            .collect();
        let hostile = server.joined(25, HOSTILE);
        server.until_ready(22);
        browser.until_shows("22 of 25 ready for f.bin");
        browser.until_shows("25 missing");
        // It may have come after the 22, so a state without it may be shown first.
        browser.until_shows("<img src=x onerror=pwned=1>\\u{202e}\\u{1b}[2J\\u{9b}");
        take_pictures(&browser, "before");

        // By keyboard: Tab reaches the button first, and Enter presses it.
        browser.keys("\u{e004}");
        assert_eq!(browser.script("return document.activeElement.tagName"), "BUTTON");
        browser.keys("\u{e007}");
        browser.until_shows("Sending f.bin to 22");
        browser.until_shows("all together");
        take_pictures(&browser, "during");
        drop(hostile);
        for client in clients.drain(..) {
            for end in client.join().expect("no panic") {
                assert!(end.error.is_none(), "{:?}", end.error);
            }
        }
        browser.until_shows("FAILED: 22 of 25 copies of f.bin are proven");
        browser.until_shows("1 client: the gate opened before this client was ready");
        browser.until_shows("2 clients missing (seats ");
        let record = server.record();
        browser.until_shows("release skew");
        let rows =
            browser.script("return document.querySelectorAll('#after-table tbody tr').length");
        assert_eq!(rows, record.transfers.len());
        take_pictures(&browser, "after");
        assert_eq!(browser.script("return typeof pwned"), "undefined");
        assert_eq!(browser.complaints(), Vec::<String>::new());
        drop(browser);
        server.stop();
    });
}

#[test]
fn page_fits_one_client_and_two_hundred() {
    if !have_browser() {
        return;
    }
    in_turn("page", Duration::from_secs(180), || {
        let settings = |settings: &mut ServerConfig| {
            settings.rate = bytes_per_second(4_000_000);
            settings.auto = AutoMode::Always;
        };
        let server = face(settings, 40_000);
        let folder = tempfile::tempdir().expect("a folder");
        let browser = Browser::start(folder.path());
        for group in [1_u16, 200] {
            browser.open(&format!("http://{}/", server.addr));
            browser.until_shows("Waiting for the first client: nobody is at the gate");
            browser.until_shows(&format!("gatecast fetch {} --group 25 f.bin", server.addr));
            let waiting: Vec<_> = (1..group)
                .map(|n| {
                    server.fetch(&format!("room-3-pc-{n}"), move |order| order.group = Some(group))
                })
                .collect();
            server.until_ready(usize::from(group) - 1);
            if group > 1 {
                browser.until_shows("199 of 200 ready");
                take_pictures(&browser, "before-200");
            }
            let last = server.fetch("the-last", move |order| order.group = Some(group));
            if group > 1 {
                browser.until_shows("Sending f.bin to 200");
                take_pictures(&browser, "during-200");
            }
            browser.until_shows(&format!("{group} of {group} copies of f.bin are proven"));
            let why = texts(&browser, "#after-slow li");
            let chosen = "chosen: tcp (no multicast: seat 1 (";
            assert!(why[0].starts_with(chosen) && why[0].ends_with("it)"), "{why:?}");
            // One number of clients is one point, and no plot.
            let plot = "const plot = document.querySelector('#plot');
                return !plot.hidden && plot.querySelector('img').naturalWidth > 0";
            until("the plot of two", || group == 1 || browser.script(plot) == true);
            take_pictures(&browser, &format!("after-{group}"));
            assert_eq!(browser.script(plot), group > 1);
            assert_eq!(texts(&browser, "#after-title.good").len(), 1);
            assert_eq!(texts(&browser, "#after-failed li"), [""; 0]);
            for client in waiting.into_iter().chain([last]) {
                common::whole(client.join().expect("no panic"), &server);
            }
        }
        assert_eq!(browser.complaints(), Vec::<String>::new());
        drop(browser);
        server.stop();
    });
}

#[test]
fn page_of_a_failed_session_says_who_how_far_and_why() {
    if !have_browser() {
        return;
    }
    in_turn("page", Duration::from_secs(180), || {
        let server = face(
            |settings| {
                settings.clients = Some(3);
                settings.stall = Duration::from_secs(120);
            },
            40_000_000,
        );
        let folder = tempfile::tempdir().expect("a folder");
        let browser = Browser::start(folder.path());
        browser.open(&format!("http://{}/", server.addr));
        let whole = server.waiting(3, "pc-whole");
        let mut gone = server.waiting(3, "pc-gone");
        let mut resumed = server.joined(3, "pc-resumed");
        resumed.send("READY offset=30000000\n");

        // One reads the first bytes, and no more until its connection is lost.
        assert_eq!(gone.read_past_wait(), "GO bytes=40000000");
        gone.read_payload(1024);
        gone.send("HELD\n");
        let others = [whole, resumed].map(|mut peer| {
            thread::spawn(move || {
                peer.receive_to_last();
                peer
            })
        });
        let others = others.map(|thread| thread.join().expect("no panic"));
        browser.until_shows("all sent, not proven yet, 30 MB kept");
        gone.reset();
        browser.until_shows("Sending f.bin to 3, 1 FAILED");
        browser.until_shows("1 client: the connection was lost");
        browser.until_shows("0 of 3");
        let moving = "#open .bars .failed";
        assert_eq!(texts(&browser, &format!("{moving} .name")), ["2 pc-gone"]);
        is_red(&browser, "#open h2");
        is_red(&browser, &format!("{moving} .top span:last-child"));
        take_pictures(&browser, "failing");
        let far = |place: &str| {
            let right = texts(&browser, &format!("{place} .failed .top span:last-child"));
            let percent = right[0].strip_prefix("failed at ").expect(&right[0]);
            percent.strip_suffix(" %").expect(percent).parse::<u8>().expect("a number")
        };
        let stopped_at = far("#open");
        assert!(stopped_at < 100, "{stopped_at}");
        // Its bar has stripes, as no other has.
        let bars = "return [...document.querySelectorAll('#open .bars li')].map(li =>
            getComputedStyle(li.querySelector('progress')).getPropertyValue('--bar').includes('gradient'))";
        assert_eq!(browser.script(bars), json!([false, true, false]));

        let sha1 = server.sha1;
        for (mut peer, bytes) in others.into_iter().zip([40_000_000, 10_000_000]) {
            peer.send_message(&FromClient::Hashed { sha1 });
            peer.send_message(&common::receipt(bytes, sha1));
        }
        browser.until_shows("FAILED: 2 of 3 copies of f.bin are proven");
        let title = texts(&browser, "#after-title.bad .why");
        assert!(title[0].starts_with("1 client: the connection was lost"), "{title:?}");
        is_red(&browser, "#after-title");
        assert_eq!(texts(&browser, "#after-failed .name"), ["2 pc-gone"]);
        assert_eq!(far("#after-failed"), stopped_at);
        let kept = texts(&browser, "#after-table td[data-name=\"bytes kept\"]");
        assert_eq!(kept, ["-", "-", "30,000,000"]);
        assert!(browser.script("return document.title") == "FAILED: 2/3 - gatecast");
        take_pictures(&browser, "failed");
        // Where there is no room for all columns, those that say who, whether and why are there.
        browser.set_view(DESK.0, DESK.1, "light");
        let reaches = "const end = name => document.querySelector(`#after-table th[data-name='${name}']`)\
                       .getBoundingClientRect().right; const box = document.querySelector('.scroll');\
                       return ['verified', 'client', 'outcome'].every(name => end(name) > 0 &&\
                       end(name) <= box.getBoundingClientRect().right + 1)";
        until("the columns of the answer", || browser.script(reaches) == true);
        // The whole reason is in the table, at any width.
        let reason = texts(&browser, "#after-table td[data-name=outcome].bad");
        assert!(reason[0].starts_with("cut: the connection was lost"), "{reason:?}");
        assert_eq!(browser.script("return document.querySelector('#plot').hidden"), true);
        assert_eq!(browser.complaints(), Vec::<String>::new());

        server.stop();
        browser.until_shows("the server does not answer");
        is_red(&browser, "#link");
        drop(browser);
    });
}

#[test]
fn page_of_a_failed_muster_says_why_and_has_no_empty_columns() {
    if !have_browser() {
        return;
    }
    in_turn("page", Duration::from_secs(120), || {
        let server = face(
            |settings| {
                settings.clients = Some(4);
                settings.max_wait = Duration::from_secs(1);
            },
            1000,
        );
        let folder = tempfile::tempdir().expect("a folder");
        let browser = Browser::start(folder.path());
        browser.open(&format!("http://{}/", server.addr));
        let _waits = ["a", "b"].map(|name| server.waiting(4, name));
        browser.until_shows("FAILED: 0 of 4 copies of f.bin are proven");
        browser.until_shows("Waiting for 4 clients");
        let why = texts(&browser, "#after-title.bad .why");
        let expected = "2 of 4 clients were ready after 1 s; 2 clients missing (seats 3-4)";
        assert_eq!(why, [expected]);
        is_red(&browser, "#after-title");
        // Nothing was sent: no bar, no dash in place of a figure, and no column of them.
        assert_eq!(texts(&browser, "#after-failed li"), [""; 0]);
        assert_eq!(texts(&browser, "#after-global b"), ["1 kB", "tcp"]);
        assert_eq!(
            texts(&browser, "#after-table th"),
            ["seat", "address", "client port", "server port", "client", "outcome"]
        );
        let outcomes = texts(&browser, "#after-table td[data-name=outcome]");
        assert_eq!(outcomes, ["timed out: 2 of 4 clients were ready after 1 s"; 2]);
        take_pictures(&browser, "failed-muster");
        assert_eq!(browser.complaints(), Vec::<String>::new());
        drop(browser);
        server.stop();
    });
}

/// A way that knows holes, until the ways that do are here: TCP's bytes, with a map beside them.
#[derive(Debug)]
struct Holes(tcp::send::TcpTransport);

#[derive(Debug)]
struct HolesLine(Box<dyn SendSession>);

impl Transport for Holes {
    fn via(&self) -> Via {
        Via::Udp
    }

    fn prepare(&self, plan: &SendPlan) -> Result<Box<dyn SendSession>> {
        Ok(Box::new(HolesLine(self.0.prepare(plan)?)))
    }
}

impl SendSession for HolesLine {
    fn prepare_connection(&self, stream: &TcpStream) -> Result<()> {
        self.0.prepare_connection(stream)
    }

    fn description(&self, stream: &TcpStream) -> String {
        self.0.description(stream)
    }

    fn send(&self, seat: &SeatConnection, cargo: SendJob<'_>) -> SendResult {
        self.0.send(seat, cargo)
    }

    fn detail(&self, seat: SeatId) -> SeatDetail {
        SeatDetail {
            lost: Some(u64::from(seat.0) * 7),
            map: (0..64).map(|piece| if piece % 9 == 0 { 30 } else { 100 }).collect(),
        }
    }
}

#[test]
fn page_shows_loss_and_where_it_is() {
    if !have_browser() {
        return;
    }
    in_turn("page", Duration::from_secs(120), || {
        let server = Server::with(
            200_000,
            |settings| {
                settings.clients = Some(2);
                settings.via = Some(Via::Udp);
                settings.rate = bytes_per_second(100_000);
            },
            |host| {
                let way = tcp::send::TcpTransport::new(Via::Tcp, &host.settings);
                let way = Holes(way.expect("TCP"));
                http::serve(tcp::serve(host).expect("TCP"), HttpConfig::default())
                    .expect("HTTP")
                    .transport(Box::new(way))
            },
        );
        let folder = tempfile::tempdir().expect("a folder");
        let browser = Browser::start(folder.path());
        browser.open(&format!("http://{}/", server.addr));
        let peers: Vec<_> = ["a", "b"].map(|name| server.waiting(2, name)).into_iter().collect();
        let takers: Vec<_> = peers
            .into_iter()
            .map(|mut peer| thread::spawn(move || peer.receive_to_last()))
            .collect();
        browser.until_shows("7 lost");
        browser.until_shows("14 lost");
        let label =
            browser.script("return document.querySelector('canvas').getAttribute('aria-label')");
        assert_eq!(label, "Seat 1: 56 of 64 pieces whole");
        take_pictures(&browser, "holes");
        drop(browser);
        for taker in takers {
            assert_eq!(taker.join().expect("no panic"), server.sha1);
        }
        server.stop();
    });
}
