//! What some ways count beside bytes and seconds, as a table of its own below that of the
//! transfers: datagrams and the places where they were lost, or where a swarm's bytes came from.
//!
//! The figures that say how it went stand there always; those of rare trouble have a column only
//! where a client had it. [`Counts`] says what each figure means.

use std::fmt::Write;

use crate::{
    report::{
        columns::{
            self, TransferColumn,
            When::{self, Counted, Lost, Positive},
            count,
        },
        median_range::MedianRange,
        table::{Align, Rows, or_dash},
    },
    session::Via,
    text::escape,
    transfer::{Counts, Record, Transfer},
    units::total,
};

/// A row for each transfer of `record`, and a line about all of them; nothing for a way that
/// counts neither datagrams nor sources. `rows` and `limit` as for the table of the transfers.
pub fn table(record: &Record, rows: Rows, limit: Option<usize>) -> String {
    let counts = || record.transfers.iter().map(|transfer| &transfer.counts);
    let columns = if counts().any(|counts| counts.offered.is_some()) {
        &DATAGRAMS[..]
    } else if counts().any(|counts| counts.bytes_from_peers.is_some()) {
        &SOURCES
    } else {
        return String::new();
    };
    let mut shown = columns::filled(record, columns, rows, |_| false).fitted(limit);
    let of = |count: usize| match record.transfers.len() {
        all if all == count => String::new(),
        _ => format!(", of the {count} that tell"),
    };
    if let Some((count, line)) = datagrams(record).or_else(|| sources(record)) {
        let _ = writeln!(shown, "{line}{}", of(count));
    }
    shown
}

// What was lost has rank 1, then where, then the figures of rare trouble and of time.
const DATAGRAMS: [TransferColumn; 22] = [
    SEAT,
    column(("datagrams\nsent", 1), Counted, |t| count(t.counts.offered)),
    column(("received", 1), Counted, |t| count(t.counts.unique)),
    column(("lost", 1), Counted, |t| count(t.counts.lost)),
    TransferColumn::figures(("lost\n%", 2), Lost, 3, |t| t.counts.loss_percent()),
    column(("server's\nqueue", 2), Lost, |t| count(t.counts.local_drop)),
    column(("net-\nwork", 2), Lost, |t| count(t.counts.network_lost)),
    column(("client's\nbuffer", 2), Lost, |t| count(t.counts.host_rx_drop)),
    column(("longest\nburst", 2), Lost, |t| count(t.counts.loss_burst)),
    column(("unheard", 3), Positive, |t| count(t.counts.unheard)),
    column(("dupli-\ncate", 3), Positive, |t| count(t.counts.duplicate)),
    column(("out of\norder", 3), Positive, |t| count(t.counts.reordered)),
    column(("by at\nmost", 3), Positive, |t| count(t.counts.reorder_extent)),
    column(("too\nlate", 3), Positive, |t| count(t.counts.late)),
    column(("corrupt", 3), Positive, |t| count(t.counts.corrupt)),
    column(("foreign", 3), Positive, |t| count(t.counts.foreign)),
    column(("bytes\nagain", 3), Positive, |t| count(t.counts.retransmitted)),
    column(("jitter\nus", 4), Counted, |t| count(t.counts.jitter_us)),
    column(("p99\nus", 4), Counted, |t| count(t.counts.jitter_p99_us)),
    column(("queued\nus", 4), Counted, |t| count(t.counts.delay_us)),
    column(("at most\nus", 4), Counted, |t| count(t.counts.delay_max_us)),
    NAME,
];

const SOURCES: [TransferColumn; 6] = [
    SEAT,
    column(("bytes from\nthe server", 1), Counted, |t| count(t.counts.bytes_from_server)),
    column(("bytes\nfrom peers", 1), Counted, |t| count(t.counts.bytes_from_peers)),
    TransferColumn::figures(("from\npeers %", 1), Counted, 1, |t| {
        let peers = count(t.counts.bytes_from_peers)?;
        let all = peers + count(t.counts.bytes_from_server)?;
        (all > 0.0).then(|| 100.0 * peers / all)
    }),
    column(("of no\nuse", 3), Positive, |t| count(t.counts.retransmitted)),
    NAME,
];

const SEAT: TransferColumn =
    TransferColumn::words(("seat", Align::Right, 0), |t| t.seat.to_string());

const NAME: TransferColumn = TransferColumn::words(("name", Align::Left, 1), |t| escape(&t.name));

const fn column(
    heading: (&'static str, u8),
    when: When,
    count: fn(&Transfer) -> Option<f64>,
) -> TransferColumn {
    TransferColumn::figures(heading, when, 0, count)
}

/// How many transfers have these counts, and what all of them lost, and where.
fn datagrams(record: &Record) -> Option<(usize, String)> {
    let telling: Vec<&Counts> = record
        .transfers
        .iter()
        .map(|transfer| &transfer.counts)
        .filter(|counts| counts.offered.is_some() && counts.lost.is_some())
        .collect();
    let sum = |part: fn(&Counts) -> Option<u64>| {
        telling.iter().try_fold(0_u128, |sum, counts| Some(sum + u128::from(part(counts)?)))
    };
    let (offered, lost) = (sum(|c| c.offered)?, sum(|c| c.lost)?);
    let mut line = match telling.iter().filter_map(|counts| counts.offered).max() {
        // One stream, which every client counts.
        Some(once) if record.via == Via::Multicast => format!(
            "{once} datagrams sent once for all clients, which count {offered} together, {lost} lost"
        ),
        _ => format!("{offered} datagrams in all, {lost} lost"),
    };
    if lost > 0 {
        let _ = write!(
            line,
            " ({:.3} %): {} in the server's queue, {} in the network, {} in clients' buffers",
            100.0 * float(lost) / float(offered),
            or_dash(sum(|c| c.local_drop)),
            or_dash(sum(|c| c.network_lost)),
            or_dash(sum(|c| c.host_rx_drop)),
        );
    }
    (!telling.is_empty()).then_some((telling.len(), line))
}

/// How many transfers have these counts, and how much of all came from the server, as files.
fn sources(record: &Record) -> Option<(usize, String)> {
    let both = |t: &Transfer| Some((t.counts.bytes_from_server?, t.counts.bytes_from_peers?));
    let telling = || record.transfers.iter().filter_map(both);
    let file = count(Some(record.file.bytes)).filter(|&bytes| bytes > 0.0)?;
    let server = float(total(telling().map(|(server, _)| server))) / file;
    let peers = float(total(telling().map(|(_, peers)| peers))) / file;
    let line = format!("from the server {server:.3} times the file, from peers {peers:.3} times");
    Some((telling().count(), line)).filter(|&(count, _)| count > 0)
}

/// What each client of a swarm gave to others: the least, the median and the most, and in a session
/// of few clients each of them. Empty without clients.
pub fn given(clients: &[(String, u64)]) -> String {
    let mb = |bytes: f64| format!("{:.1} MB", bytes / 1e6);
    let Some(spread) = MedianRange::of(clients.iter().map(|(_, bytes)| float((*bytes).into())))
    else {
        return String::new();
    };
    let [low, median, high] = [spread.low, spread.median, spread.high].map(mb);
    let mut line = format!("given by each client {low} at least, {median} median, {high} at most");
    if clients.len() <= EACH_MAX {
        for (at, (name, bytes)) in clients.iter().enumerate() {
            let mark = if at == 0 { ": " } else { ", " };
            let _ = write!(line, "{mark}{} {}", escape(name), mb(float((*bytes).into())));
        }
    }
    line + "\n"
}

/// Most clients of which each is named in a line.
const EACH_MAX: usize = 4;

/// Exact to 2^53, which no session reaches.
fn float(value: u128) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn counted(clients: u16, of: fn(u64) -> Counts) -> Record {
        let mut record = sample::session(1, clients, 80);
        for (seat, transfer) in (1..).zip(&mut record.transfers) {
            transfer.counts = of(seat);
        }
        record
    }

    #[test]
    fn bytes_given_are_a_line() {
        assert_eq!(given(&[]), "");
        let of = |count: u64| (1..=count).map(|n| (format!("C{n}"), n * 1_000_000)).collect();
        let few: Vec<(String, u64)> = of(3);
        assert_eq!(
            given(&few),
            "given by each client 1.0 MB at least, 2.0 MB median, 3.0 MB at most: C1 1.0 MB, \
             C2 2.0 MB, C3 3.0 MB\n"
        );
        let many: Vec<(String, u64)> = of(25);
        assert_eq!(
            given(&many),
            "given by each client 1.0 MB at least, 13.0 MB median, 25.0 MB at most\n"
        );
    }

    #[test]
    fn impossible_counts_are_summed_and_reported_as_wrong() {
        let record = counted(2, |_| Counts {
            offered: Some(u64::MAX),
            unique: Some(u64::MAX),
            lost: Some(u64::MAX),
            unheard: Some(1),
            bytes_from_server: Some(u64::MAX),
            bytes_from_peers: Some(u64::MAX),
            ..Counts::default()
        });
        let (telling, line) = datagrams(&record).expect("they tell");
        assert_eq!(telling, 2);
        assert_eq!(
            line,
            "36893488147419103230 datagrams in all, 36893488147419103230 lost (100.000 %): - in \
             the server's queue, - in the network, - in clients' buffers"
        );
        assert!(sources(&record).is_some());
        // A sum that does not fit into a counter is not the counter.
        let broken = record.broken_identities();
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert!(broken[0].contains("36893488147419103231"), "{broken:?}");
    }

    fn quiet(seat: u64) -> Counts {
        Counts {
            offered: Some(700),
            unique: Some(700),
            lost: Some(0),
            duplicate: Some(0),
            local_drop: Some(0),
            network_lost: Some(0),
            host_rx_drop: Some(0),
            jitter_us: Some(10 + seat),
            jitter_p99_us: Some(90),
            delay_us: Some(120),
            delay_max_us: Some(700),
            ..Counts::default()
        }
    }

    #[test]
    fn way_without_counts_has_no_table() {
        assert_eq!(table(&sample::session(1, 3, 80), Rows::All, None), "");
    }

    #[test]
    fn table_is_narrow_without_trouble() {
        insta::assert_snapshot!(table(&counted(2, quiet), Rows::All, None), @r"
              datagrams                  jitter  p99  queued  at most
        seat       sent  received  lost      us   us      us       us  name
        ----  ---------  --------  ----  ------  ---  ------  -------  ----
           1        700       700     0      11   90     120      700  C1
           2        700       700     0      12   90     120      700  C2
        1400 datagrams in all, 0 lost
        ");
    }

    #[test]
    fn stream_of_multicast_is_counted_once() {
        let mut record = counted(5, quiet);
        record.via = Via::Multicast;
        let text = table(&record, Rows::All, None);
        let last = text.lines().last();
        let line = "700 datagrams sent once for all clients, which count 3500 together, 0 lost";
        assert_eq!(last, Some(line));
    }

    #[test]
    fn lost_datagrams_are_placed() {
        let mut record = counted(3, quiet);
        let lossy = &mut record.transfers[1].counts;
        lossy.unique = Some(680);
        lossy.lost = Some(20);
        lossy.local_drop = Some(1);
        lossy.network_lost = Some(12);
        lossy.host_rx_drop = Some(7);
        lossy.loss_burst = Some(4);
        lossy.duplicate = Some(3);
        record.transfers[2].counts = Counts::default();
        insta::assert_snapshot!(table(&record, Rows::All, None), @r"
              datagrams                   lost  server's  net-  client's  longest  dupli-  jitter  p99  queued  at most
        seat       sent  received  lost      %     queue  work    buffer    burst    cate      us   us      us       us  name
        ----  ---------  --------  ----  -----  --------  ----  --------  -------  ------  ------  ---  ------  -------  ----
           1        700       700     0  0.000         0     0         0        -       0      11   90     120      700  C1
           2        700       680    20  2.857         1    12         7        4       3      12   90     120      700  C2
           3          -         -     -      -         -     -         -        -       -       -    -       -        -  C3
        1400 datagrams in all, 20 lost (1.429 %): 1 in the server's queue, 12 in the network, 7 in clients' buffers, of the 2 that tell
        ");
        record.transfers[0].counts.host_rx_drop = None;
        let shown = table(&record, Rows::All, None);
        assert!(shown.contains("12 in the network, - in clients' buffers"), "{shown}");
    }

    #[test]
    fn swarm_table_says_where_bytes_came_from() {
        let record = counted(2, |seat| Counts {
            bytes_from_server: Some(400_000 + seat),
            bytes_from_peers: Some(600_000 - seat),
            retransmitted: Some(0),
            ..Counts::default()
        });
        insta::assert_snapshot!(table(&record, Rows::All, None), @r"
              bytes from       bytes     from
        seat  the server  from peers  peers %  name
        ----  ----------  ----------  -------  ----
           1      400001      599999     60.0  C1
           2      400002      599998     60.0  C2
        from the server 0.800 times the file, from peers 1.200 times
        ");
    }

    #[test]
    fn large_session_shows_low_median_and_high() {
        let record = counted(1000, quiet);
        insta::assert_snapshot!(table(&record, Rows::Failures, None), @r"
                datagrams                  jitter  p99  queued  at most
          seat       sent  received  lost      us   us      us       us  name
        ------  ---------  --------  ----  ------  ---  ------  -------  ----
           low        700       700     0      11   90     120      700
        median        700       700     0     510   90     120      700
          high        700       700     0    1010   90     120      700
        700000 datagrams in all, 0 lost
        ");
        assert_eq!(table(&record, Rows::All, None).lines().count(), 1004);
    }
}
