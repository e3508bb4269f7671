use super::*;

fn good() -> Calibration {
    Calibration {
        tcp_alone_mbit: 95.6,
        tcp_expected_mbit: 100.0 * TCP_SHARE,
        udp_alone_mbit: 97.2,
        udp_expected_mbit: 100.0 * UDP_SHARE,
        round_trip_us: 90,
        together_mbit: vec![97.1, 97.0, 96.0],
        together_expected_mbit: vec![100.0 * UDP_SHARE; 3],
        loss_check: None,
    }
}

fn lossy() -> LossCheck {
    LossCheck {
        asked: 0.01,
        sent: 30_000,
        received: 29_700,
        filter_dropped: 300,
        filter_seen: 30_000,
        receiver_dropped: 0,
    }
}

#[test]
fn short_link_is_named() {
    assert!(good().check(TOLERANCE, true).is_ok());
    for change in [
        |c: &mut Calibration| c.tcp_alone_mbit = 94.6,
        |c: &mut Calibration| c.tcp_alone_mbit = 96.7,
        |c: &mut Calibration| c.tcp_alone_mbit = f64::NAN,
        |c: &mut Calibration| c.udp_alone_mbit = 0.0,
        |c: &mut Calibration| c.udp_alone_mbit = 90.0,
    ] {
        let mut bad = good();
        change(&mut bad);
        let error = bad.check(TOLERANCE, false).expect_err("short").to_string();
        assert!(error.contains("were asked for"), "{error}");
    }
    let mut busy = good();
    busy.together_mbit[1] = 60.0;
    assert!(busy.check(TOLERANCE, false).is_ok());
    let error = busy.check(TOLERANCE, true).expect_err("busy").to_string();
    assert!(error.contains("host 1 sends 60.0 Mbit/s"), "{error}");
}

#[test]
fn lost_datagram_without_account_is_an_error() {
    assert!(lossy().check().is_ok());
    for change in [
        |l: &mut LossCheck| l.received -= 1,
        |l: &mut LossCheck| l.filter_dropped += 1,
        |l: &mut LossCheck| (l.received, l.filter_dropped) = (29_600, 400),
        |l: &mut LossCheck| (l.received, l.filter_dropped) = (30_000, 0),
    ] {
        let mut bad = lossy();
        change(&mut bad);
        assert!(bad.check().is_err(), "{bad:?}");
    }
    let mut full = lossy();
    (full.received, full.receiver_dropped) = (29_690, 10);
    assert!(full.check().is_ok(), "the receiver's drops are its own");
}
