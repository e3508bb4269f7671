//! The page in a real browser: before, during and after a session, released by its button.

use std::{fs, net::TcpStream, path::PathBuf, sync::Arc, thread, time::Duration};

use gatecast::internals::{
    error::Result,
    http,
    http::{Documents, HttpConfig},
    report::{csv, json, scaling},
    server::{
        catalog::Source,
        config::ServerConfig,
        gate::SeatConnection,
        transport::{SeatDetail, SendJob, SendResult, SendSession, Transport},
    },
    session::{SeatId, Via},
    transport::tcp,
    units::Rate,
};

use crate::{
    common,
    common::{Server, browser::Browser, bytes_per_second, have, installed, turn::in_turn, until},
};

/// The folder for pictures of the page; none unless the environment names one.
fn pictures() -> Option<PathBuf> {
    std::env::var_os("GATECAST_PICTURES").map(PathBuf::from)
}

fn have_browser() -> bool {
    have("chromium with chromedriver", installed("chromedriver") && installed("chromium"))
}

/// Takes pictures of the page in the size of a desk screen and of a phone, light and dark.
fn take_pictures(browser: &Browser, name: &str) {
    for (place, width, height) in [("desk", 1280, 900), ("phone", 390, 844)] {
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
        }
    }
    browser.set_view(1280, 900, "light");
}

fn face(set: impl FnOnce(&mut ServerConfig), bytes: u64) -> Server {
    Server::with(bytes, set, |host| {
        let options = HttpConfig {
            documents: Documents {
                json: Some(json::session),
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
        browser.until_shows("Nobody is at the gate");
        browser.until_shows(&format!("gatecast fetch {} f.bin", server.addr));
        browser.until_shows(&format!("curl -O 'http://{}/files/f.bin?gate'", server.addr));
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
        browser.until_shows("22 of 25 copies of f.bin are proven");
        let record = server.record();
        browser.until_shows("release skew");
        until("the plot", || {
            browser.script("return document.querySelector('#plot img').naturalWidth > 0") == true
        });
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
        let server = face(|settings| settings.rate = bytes_per_second(4_000_000), 40_000);
        let folder = tempfile::tempdir().expect("a folder");
        let browser = Browser::start(folder.path());
        for group in [1_u16, 200] {
            browser.open(&format!("http://{}/", server.addr));
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
            take_pictures(&browser, &format!("after-{group}"));
            for client in waiting.into_iter().chain([last]) {
                common::whole(client.join().expect("no panic"), &server);
            }
        }
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

    fn prepare(
        &self,
        source: &Arc<Source>,
        clients: u16,
        rate: Option<Rate>,
    ) -> Result<Box<dyn SendSession>> {
        Ok(Box::new(HolesLine(self.0.prepare(source, clients, rate)?)))
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
                let way = Holes(tcp::send::TcpTransport::new(host.settings()).expect("TCP"));
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
