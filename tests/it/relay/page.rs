//! The relay's page and what stands behind it: figures for machines, events, buttons.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use gatecast::internals::{
    net::{
        address,
        http::{guard::AccessGuard, subscribers::SUBSCRIBERS_MAX},
    },
    proto::relay::{ViewerState, log::ViewerEnd, metrics::METRICS},
    relay::Relay,
};
use serde_json::Value;

use crate::{
    common::{
        PATIENCE, Peer, have,
        http::{Answer, answer, ask, get_with},
        until, within,
    },
    relay::{
        LIMIT, Lab, Source,
        http::{viewer, viewer_named},
        relay_with, source, visits, watch,
    },
};

pub(super) const TOKEN: &str = "0123456789abcdef";

/// A program's name that a page must not take for its own words.
const HOSTILE: &str = "<svg/onload=pwned=1>\"\\\u{202e}";

/// A relay whose token is known, which `elsewhere` may use too.
fn guarded(elsewhere: Vec<IpAddr>) -> Relay {
    let guard = AccessGuard::new(Some(TOKEN.to_owned()), elsewhere, Vec::new());
    relay_with(|builder| builder.listen("0.0.0.0:0").access(guard))
}

/// The relay's address on loopback.
fn here(relay: &Relay) -> SocketAddr {
    ([127, 0, 0, 1], relay.local_addr().port()).into()
}

fn post_to(addr: SocketAddr, path: &str, fields: &str) -> (u16, String) {
    let lines = format!("POST {path} HTTP/1.1\nHost: localhost\nContent-Length: 0\n{fields}\n");
    let (status, _, body) = answer(&ask(addr, &lines));
    (status, String::from_utf8(body).expect("text"))
}

pub(super) fn post(relay: &Relay, path: &str) -> (u16, String) {
    post_to(here(relay), path, &format!("Gatecast-Token: {TOKEN}\n"))
}

pub(super) fn get(relay: &Relay, path: &str) -> String {
    let (status, _, body) = get_with(here(relay), path, "");
    assert_eq!(status, 200, "{path}");
    String::from_utf8(body).expect("text")
}

fn viewers(relay: &Relay) -> Vec<Value> {
    let document: Value = serde_json::from_str(&get(relay, "/viewers")).expect("JSON");
    document["viewers"].as_array().expect("a list").clone()
}

/// Sends a stream with its tables until it is dropped.
struct Sending(Arc<AtomicBool>, Option<thread::JoinHandle<()>>);

impl Sending {
    fn to(relay: &Relay) -> Self {
        let going = Arc::new(AtomicBool::new(true));
        let (sends, mut source) = (Arc::clone(&going), Source::to(relay));
        let thread = thread::spawn(move || {
            while sends.load(Ordering::SeqCst) {
                source.socket.send(&source::tables()).expect("sent");
                source.send(4);
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self(going, Some(thread))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
        let _ = self.1.take().expect("once").join();
    }
}

#[test]
fn viewers_are_paused_resumed_and_let_go_with_the_token() {
    within(LIMIT, || {
        let relay = guarded(Vec::new());
        let mut source = Source::to(&relay);
        let (mut lab, mut other) = (Lab::connected(&relay), Lab::connected(&relay));
        let by_url = viewer(&relay);
        let state = |viewer: usize| relay.snapshot().viewers[viewer].state;
        assert_eq!(post(&relay, "/viewers/1/pause"), (200, "1 viewer is paused\n".to_owned()));
        source.send(20);
        assert!(other.receive(20).into_iter().eq(0..20));
        lab.receives_nothing();
        until("they pass", || relay.snapshot().viewers[0].sent.paused == 20);
        assert_eq!(post(&relay, "/viewers/1/resume").0, 200);
        source.send(20);
        assert!(lab.receive(20).into_iter().eq(20..40));
        // All of them: then nothing is read.
        assert_eq!(post(&relay, "/viewers/all/pause").1, "3 viewers are paused\n");
        until("it sleeps", || !relay.snapshot().awake);
        assert_eq!([0, 1, 2].map(state), [ViewerState::Paused; 3]);
        // Who was paused here may go on by itself.
        assert_eq!(lab.ask("CONTINUAR"), "OK\n");
        assert_eq!([0, 1].map(state), [ViewerState::Running, ViewerState::Paused]);
        assert_eq!(post(&relay, "/viewers/all/resume").1, "3 viewers are running\n");
        source.send(5);
        assert!(lab.receive(5).into_iter().eq(40..45));
        assert_eq!(post(&relay, "/viewers/1/leave").1, "1 viewer is let go\n");
        assert_eq!(lab.read_line(), "ERROR let go on the relay's page\n");
        assert_eq!(post(&relay, "/viewers/3/leave").0, 200);
        until("they are gone", || relay.snapshot().viewers.len() == 1);
        for path in
            ["/viewers/1/leave", "/viewers/1/resume", "/viewers/0/pause", "/viewers/x/pause"]
        {
            assert_eq!(post(&relay, path).0, 404, "{path}");
        }
        for path in ["/viewers/2", "/viewers/2/", "/viewers/2/pause/x", "/viewers/2/eat"] {
            assert_eq!(post(&relay, path).0, 404, "{path}");
        }
        assert_eq!(
            relay.snapshot().viewers[0].state,
            ViewerState::Running,
            "the other is as it was"
        );
        source.send(5);
        assert!(other.receive(25).into_iter().skip(20).eq(40..45));
        assert!(other.receive(5).into_iter().eq(45..50));
        other.send(b"DESCONECTAR\n");
        drop(by_url);
        until("all are gone", || relay.snapshot().viewers.is_empty());
        let ends: Vec<_> =
            visits(relay).into_iter().map(|visit| (visit.end, visit.reason)).collect();
        let let_go = (ViewerEnd::Stopped, Some("let go on the relay's page".to_owned()));
        assert_eq!(ends, [let_go.clone(), (ViewerEnd::Left, None), let_go]);
    });
}

#[test]
fn change_is_refused_without_token_or_from_elsewhere() {
    within(LIMIT, || {
        let relay = guarded(Vec::new());
        let _lab = Lab::connected(&relay);
        let with = |fields: &str| post_to(here(&relay), "/viewers/all/leave", fields);
        for fields in ["", "Gatecast-Token: \n", "Gatecast-Token: 0123456789abcdeF\n"] {
            assert_eq!(with(fields), (403, "the token is missing or wrong\n".to_owned()));
        }
        assert_eq!(get_with(here(&relay), "/viewers/all/leave", "").0, 404, "a change is posted");
        let page = get(&relay, "/");
        assert!(page.contains(TOKEN), "this machine's page has the token");
        for path in ["/", "/viewers", "/metrics", "/events"] {
            let lines = format!("GET {path} HTTP/1.1\nHost: evil.example\nConnection: close\n\n");
            assert_eq!(answer(&ask(here(&relay), &lines)).0, 403, "{path}");
        }
        assert_eq!(relay.snapshot().viewers.len(), 1);
    });
}

#[test]
fn address_elsewhere_may_look_and_act_only_when_named() {
    let Some(outward) = address::outward() else {
        return assert!(!have("an address besides loopback", false));
    };
    within(LIMIT, move || {
        let token = format!("Gatecast-Token: {TOKEN}\n");
        for (named, status) in [(Vec::new(), 403), (vec![outward], 200)] {
            let relay = guarded(named);
            let _lab = Lab::connected(&relay);
            let elsewhere = SocketAddr::new(outward, relay.local_addr().port());
            let (seen, _, page) = get_with(elsewhere, "/", "");
            assert_eq!(seen, 200);
            assert!(!String::from_utf8(page).expect("text").contains(TOKEN));
            assert_eq!(post_to(elsewhere, "/viewers/all/pause", "").0, 403);
            assert_eq!(post_to(elsewhere, "/viewers/all/pause", &token).0, status);
        }
    });
}

#[test]
fn name_with_markup_is_text_in_every_document() {
    within(LIMIT, || {
        let relay = guarded(Vec::new());
        let long = format!("{}{}", HOSTILE, "a".repeat(3_000));
        let _hostile = viewer_named(&relay, &long);
        let _honest = viewer_named(&relay, "VLC/3.0.20 LibVLC/3.0.20");
        let names: Vec<_> = viewers(&relay).iter().map(|viewer| viewer["name"].clone()).collect();
        let name = names[0].as_str().expect("text");
        assert!(name.starts_with(HOSTILE) && name.len() < 300, "{name}");
        assert_eq!(names[1], "VLC/3.0.20");
        let metrics = get(&relay, "/metrics");
        assert!(metrics.contains(r#"name="<svg/onload=pwned=1>\"\\u{5c}\\u{202e}a"#), "{metrics}");
        for text in [metrics, get(&relay, "/viewers")] {
            assert!(!text.contains('\u{202e}'), "{text}");
        }
        assert!(!get(&relay, "/").contains("svg/onload"), "the page is the same for all");
    });
}

#[test]
fn metrics_have_every_figure_of_a_viewer_of_ours() {
    within(LIMIT, || {
        let relay = guarded(Vec::new());
        let mut source = Source::to(&relay);
        let watch = watch(&relay);
        source.send_through(&relay, &[&watch], 100);
        until("it has told", || {
            let viewers = relay.snapshot().viewers;
            viewers[0].received.is_some_and(|got| got.datagrams == 100)
        });
        let mut text = String::new();
        until("the newest figures", || {
            text = get(&relay, "/metrics");
            text.contains("gatecast_relay_viewer_received_datagrams_total{viewer=\"1\",")
        });
        for line in METRICS.lines() {
            let (name, about) = line.split_once(' ').expect("a name");
            let (kind, help) = about.split_once(' ').expect("a kind");
            assert!(
                text.contains(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")),
                "{name}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            // This stream has no clock and no RTP, and the relay one input, so these are not known.
            let unknown = ["_jitter_seconds", "_rtp_lost", "_viewer_input", "_input_changes_total"];
            let unknown = unknown.iter().any(|end| name.ends_with(end));
            let has_sample =
                text.lines().any(|line| line.starts_with(name) && !line.starts_with('#'));
            let optional = name.ends_with("_dropped_total") || name.ends_with("_network_lost");
            assert!(optional || has_sample != unknown, "{name}:\n{text}");
        }
        assert!(text.contains("\ngatecast_relay_input_datagrams_total 100\n"), "{text}");
        watch.quit().expect("nothing recorded");
    });
}

/// A subscriber of the events, whose status line has been read.
fn subscriber(relay: &Relay) -> (Peer, String) {
    let mut peer = Peer::connect(here(relay));
    peer.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let status = peer.read_line();
    (peer, status)
}

fn next_state(peer: &mut Peer) -> Value {
    loop {
        if let Some(data) = peer.read_line().strip_prefix("data: ") {
            return serde_json::from_str(data.trim_end()).expect("JSON");
        }
    }
}

#[test]
fn page_left_open_is_told_each_second_until_the_relay_ends() {
    within(LIMIT, || {
        let relay = guarded(Vec::new());
        let sending = Sending::to(&relay);
        let (mut first, _) = subscriber(&relay);
        let (mut second, _) = subscriber(&relay);
        // Open, and never read.
        let (_deaf, status) = subscriber(&relay);
        assert_eq!(status, "HTTP/1.1 200 OK\r");
        let lab = Lab::connected(&relay);
        let mut last = 0.0;
        until("a state with the stream in it", || {
            let state = next_state(&mut first);
            let seconds = state["seconds"].as_f64().expect("a number");
            assert!(seconds > last, "newer each time");
            last = seconds;
            assert_eq!(state["schema"], "gatecast.relay/1");
            state["viewers"][0]["to"]
                .as_str()
                .is_some_and(|to| to.ends_with(&lab.port().to_string()))
                && state["streams"] == serde_json::json!([{"pid": 256, "type": 2}])
        });
        // All get the same one, which is made once.
        let theirs: Vec<_> = (0..2).map(|_| next_state(&mut second)["seconds"].clone()).collect();
        assert!(theirs[0].as_f64() < theirs[1].as_f64());
        drop((lab, sending));
        relay.stop().expect("no log");
        first.read_to_close();
        second.read_to_close();
    });
}

#[test]
fn thousand_requests_and_many_pages_cost_no_viewer_a_datagram() {
    within(2 * LIMIT, || {
        let relay = guarded(Vec::new());
        let mut source = Source::to(&relay);
        let watch = watch(&relay);
        let crowd: Vec<_> = (0..SUBSCRIBERS_MAX).map(|_| subscriber(&relay)).collect();
        assert!(crowd.iter().all(|(_, status)| status == "HTTP/1.1 200 OK\r"));
        assert_eq!(get_with(here(&relay), "/events", "").0, 503, "one too many");
        let addr = here(&relay);
        let asking: Vec<_> = (0..8)
            .map(|thread| {
                thread::spawn(move || {
                    let ask = |n: usize| -> Answer {
                        get_with(addr, ["/", "/metrics", "/viewers", "/live.m3u"][n % 4], "")
                    };
                    (0..125).all(|n| ask(n + thread).0 == 200)
                })
            })
            .collect();
        source.send_through(&relay, &[&watch], 2_000);
        for thread in asking {
            assert!(thread.join().expect("no panic"), "each has its answer");
        }
        // Requests that never end, in every way.
        let mut stuck: Vec<TcpStream> =
            (0..200).map(|_| TcpStream::connect(addr).expect("a place in the queue")).collect();
        for (n, stream) in stuck.iter_mut().enumerate() {
            stream
                .write_all([&b"GET /metrics HTTP/1.1\r\n"[..], b"P", b"GET /vi"][n % 3])
                .expect("sent");
        }
        source.send_through(&relay, &[&watch], 1_000);
        assert_eq!(get_with(addr, "/metrics", "").0, 200);
        let view = watch.quit().expect("nothing recorded");
        assert_eq!((view.received.datagrams, view.received.ts.errors), (3_000, 0), "{view:?}");
        drop(crowd);
        for mut stream in stuck {
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
            let mut bytes = Vec::new();
            let closed = stream.read_to_end(&mut bytes).is_ok();
            assert!(closed && bytes.starts_with(b"HTTP/1.1 408 "), "{:?}", bytes.escape_ascii());
        }
        until("their threads end", || relay.connections() == 0);
    });
}

#[cfg(feature = "cli")]
mod in_browser {
    use std::net::UdpSocket;

    use super::*;
    use crate::{
        common::{browser::Browser, turn::in_turn},
        page::{have_browser, is_red, take_pictures, texts},
        relay::LOCAL,
    };

    fn state_of(browser: &Browser, viewer: usize) -> String {
        texts(browser, "td[data-name=state]").get(viewer - 1).cloned().unwrap_or_default()
    }

    /// Presses the button whose name, as it is read out, is `name`.
    fn press(browser: &Browser, name: &str) {
        let script = "const b = [...document.querySelectorAll('button')].find(b =>
            (b.getAttribute('aria-label') || b.textContent) === ";
        browser.script(&format!("{script}'{name}'); b.focus()"));
        browser.keys("\u{e007}");
    }

    #[test]
    fn browser_shows_the_input_of_each_viewer() {
        if !have_browser() {
            return;
        }
        in_turn("page", Duration::from_secs(180), || {
            let relay = relay_with(|builder| builder.lower_inputs(&[LOCAL]));
            let folder = tempfile::tempdir().expect("a folder");
            let browser = Browser::start(folder.path());
            browser.open(&format!("http://{}/", here(&relay)));
            let _lab = Lab::connected(&relay);
            browser.until_shows("playing, input 1");
            // Only the second has a source.
            let socket = UdpSocket::bind(LOCAL).expect("a free port");
            let lower = relay.inputs().nth(1).expect("two");
            let mut next = 0;
            until("it gets what comes", || {
                socket.send_to(&Source::datagram(next), lower).expect("sent");
                next += 1;
                thread::sleep(Duration::from_millis(20));
                relay.snapshot().viewers[0].input == Some((2, 1))
            });
            browser.until_shows("playing, input 2");
            browser.until_shows("1 change of input");
        });
    }

    #[test]
    fn browser_shows_who_sees_what_and_acts_on_viewers() {
        if !have_browser() {
            return;
        }
        in_turn("page", Duration::from_secs(180), || {
            let relay = guarded(Vec::new());
            let folder = tempfile::tempdir().expect("a folder");
            let browser = Browser::start(folder.path());
            browser.open(&format!("http://{}/", here(&relay)));
            browser.until_shows("Nobody watches, and nothing is read");
            browser.until_shows(&format!("gatecast watch {}", here(&relay)));
            let sending = Sending::to(&relay);
            let mut labs: Vec<Lab> = (0..11).map(|_| Lab::connected(&relay)).collect();
            let hostile = viewer_named(&relay, HOSTILE);
            let mut reading = hostile.try_clone().expect("a descriptor");
            let reading = thread::spawn(move || std::io::copy(&mut reading, &mut std::io::sink()));
            browser.until_shows("Relaying to 12 viewers");
            browser.until_shows("MPEG-2 video (PID 256)");
            browser.until_shows("12 <svg/onload=pwned=1>\"\\\\u{202e}");
            assert_eq!(browser.script("return typeof pwned"), "undefined");

            // The first tells that a part of what it was sent is missing, more each time.
            let mut missing = 0;
            let mut tell = || {
                missing += 7;
                let sent = relay.snapshot().viewers[0].sent;
                let (datagrams, bytes) = (sent.sent.saturating_sub(missing), sent.bytes);
                let line = format!("ALIVE datagrams={datagrams} bytes={bytes} cc=1 host_drop=0");
                assert!(labs[0].ask(&line).starts_with("OK sent="));
            };
            until("the page says that it is losing", || {
                tell();
                thread::sleep(Duration::from_millis(200));
                state_of(&browser, 1) == "LOSING"
            });
            is_red(&browser, "td[data-name=state].bad");
            browser.until_shows("lost by the network");
            press(&browser, "Pause viewer 3");
            until("the third is paused", || state_of(&browser, 3) == "paused");
            assert_eq!(relay.snapshot().viewers[2].state, ViewerState::Paused);
            let red = "const bad = [...document.querySelectorAll('td canvas')].map(canvas => {
                const dots = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
                let [red, any] = [0, 0];
                for (let at = 0; at < dots.length; at += 4) {
                    any += dots[at + 3] > 0;
                    red += dots[at + 3] > 0 && dots[at] > 150;
                }
                return [any > 0, red > 0];
            }); return bad.every(plot => plot[0]) && bad[0][1] && !bad[1][1]";
            until("a plot for each, red where something was lost", || browser.script(red) == true);
            take_pictures(&browser, "relay");

            press(&browser, "Let viewer 4 go");
            browser.until_shows("1 viewer is let go");
            browser.until_shows("Relaying to 11 viewers");
            assert_eq!(labs[3].read_line(), "ERROR let go on the relay's page\n");
            // The first has told nothing for some seconds.
            browser.until_shows("Relaying to 10 viewers");
            press(&browser, "Pause all");
            browser.until_shows("All are paused, and nothing is read");
            press(&browser, "Resume all");
            browser.until_shows("Relaying to 10 viewers");
            hostile.shutdown(std::net::Shutdown::Both).expect("connected");
            drop((sending, labs, reading));
            browser.until_shows("Nobody watches, and nothing is read");
            assert_eq!(browser.complaints(), Vec::<String>::new());
            relay.stop().expect("no log");
            browser.until_shows("the relay does not answer");
        });
    }
}
