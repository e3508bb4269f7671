//! What a study measures: every combination of clients, ways, sizes, rates and losses, repeated,
//! in an order in which no way always comes first.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    proto::line::decimal,
    testbed::star::layout::HOSTS_MAX,
    units::InvalidValue,
};

/// All combinations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    /// Numbers of clients.
    pub clients: Vec<u16>,
    /// The ways, by name.
    pub ways: Vec<String>,
    /// File sizes, bytes.
    pub bytes: Vec<u64>,
    /// Nominal rates of the links, bit/s; in a room 0 alone.
    pub rates: Vec<u64>,
    /// Losses, parts of a million.
    pub losses: Vec<u32>,
    /// How often each is measured.
    pub runs: u32,
}

/// One combination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell {
    /// Nominal rate, bit/s; 0 in a room.
    pub rate: u64,
    /// Loss, parts of a million.
    pub loss: u32,
    /// File size, bytes.
    pub bytes: u64,
    /// Number of clients.
    pub clients: u16,
    /// The way.
    pub way: String,
}

/// Most runs of one study: a typing error, not a plan.
pub const RUNS_MAX: usize = 100_000;

/// Rows that take so long, seconds, are measured [`RUNS_LONG`] times at most.
pub const LONG_S: f64 = 60.0;

/// How often a long row is measured at most.
pub const RUNS_LONG: u32 = 3;

/// Numbers of clients, as they are typed: `1,2,4`, `1-13`, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCounts(pub Vec<u16>);

/// A grid that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// 10 MB to 1 to 13 clients on a star: time against the number of peers.
    Peers,
    /// Six clients, each in its own subnet behind one router.
    Router,
    /// Four clients while 0, 0.1, 1 and 5 % of all packets are lost.
    Loss,
}

fn sort<T: Ord>(values: &mut Vec<T>) {
    values.sort_unstable();
    values.dedup();
}

impl Grid {
    /// Sorts and checks it.
    ///
    /// # Errors
    /// A list that is empty, numbers of clients that no star has, too many runs.
    pub fn checked(mut self) -> Result<Self> {
        let refuse = |what: String| Err(Error::Usage { what });
        sort(&mut self.clients);
        sort(&mut self.bytes);
        sort(&mut self.rates);
        sort(&mut self.losses);
        if let Some(clients) = self.clients.iter().find(|&&n| usize::from(n) >= HOSTS_MAX) {
            let most = HOSTS_MAX - 1;
            return refuse(format!("{clients} clients; a study has at most {most}"));
        }
        if self.clients.contains(&0) {
            return refuse("0 clients; there is nothing to measure".to_owned());
        }
        let mut ways = self.ways.clone();
        ways.sort();
        if let Some(pair) = ways.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse(format!("--via names {} twice", pair[0]));
        }
        let lists = [self.ways.len(), self.bytes.len(), self.rates.len(), self.losses.len()];
        let lengths = lists.into_iter().chain([self.clients.len(), self.runs as usize]);
        match lengths.fold(1, usize::saturating_mul) {
            0 => refuse("the study is empty: a list has no value".to_owned()),
            1..=RUNS_MAX => Ok(self),
            _ => refuse(format!("more than {RUNS_MAX} runs")),
        }
    }

    /// The stars that it takes, as rate and loss.
    pub fn stars(&self) -> Vec<(u64, u32)> {
        let losses = |&rate: &u64| self.losses.iter().map(move |&loss| (rate, loss));
        self.rates.iter().flat_map(losses).collect()
    }

    /// The runs on one star, as repeat (from 0) and combination, in their order: repeats
    /// outermost, so that what changes with time strikes all alike, and the ways in turn forwards
    /// and backwards, so that none always comes after the same other.
    pub fn runs_on(&self, (rate, loss): (u64, u32)) -> Vec<(u32, Cell)> {
        let mut order = Vec::new();
        let mut backwards = false;
        for repeat in 0..self.runs {
            for &bytes in &self.bytes {
                for &clients in &self.clients {
                    let mut ways: Vec<&String> = self.ways.iter().collect();
                    if backwards {
                        ways.reverse();
                    }
                    backwards = !backwards;
                    order.extend(ways.into_iter().map(|way| {
                        let cell = Cell { rate, loss, bytes, clients, way: way.clone() };
                        (repeat, cell)
                    }));
                }
            }
            // With an even number of places the next repeat would begin as this one did.
            backwards = repeat % 2 == 0;
        }
        order
    }

    /// The most clients of any run.
    pub fn most_clients(&self) -> u16 {
        self.clients.iter().copied().max().unwrap_or(0)
    }
}

impl FromStr for ClientCounts {
    type Err = InvalidValue;

    /// Reads `1,2,4`, `1-13`, or both.
    fn from_str(text: &str) -> std::result::Result<Self, InvalidValue> {
        let wrong =
            || InvalidValue::new("clients", text, "a list of clients such as 1,2,4 or 1-13");
        let number = |text| decimal(text).and_then(|number| u16::try_from(number).ok());
        let mut clients = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = number(first).zip(number(last)).ok_or_else(wrong)?;
            if first > last {
                return Err(wrong());
            }
            clients.extend(first..=last);
        }
        Ok(Self(clients))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        Grid {
            clients: vec![4, 1, 4],
            ways: vec!["tcp".to_owned(), "udp".to_owned()],
            bytes: vec![10],
            rates: vec![100],
            losses: vec![0, 1],
            runs: 2,
        }
    }

    #[test]
    fn ways_take_turns_in_every_combination() {
        let grid = grid().checked().expect("a grid");
        assert_eq!(grid.clients, [1, 4]);
        assert_eq!(grid.stars(), [(100, 0), (100, 1)]);
        let runs = grid.runs_on((100, 1));
        let shown: Vec<String> = runs
            .iter()
            .map(|(repeat, cell)| format!("{repeat}{}{}", cell.way, cell.clients))
            .collect();
        assert_eq!(shown, ["0tcp1", "0udp1", "0udp4", "0tcp4", "1udp1", "1tcp1", "1tcp4", "1udp4"]);
        assert!(runs.iter().all(|(_, cell)| cell.loss == 1));
    }

    #[test]
    fn impossible_grid_is_refused() {
        let wrong = |change: fn(&mut Grid)| {
            let mut grid = grid();
            change(&mut grid);
            grid.checked().expect_err("wrong").to_string()
        };
        assert!(wrong(|g| g.clients.clear()).contains("empty"));
        assert!(wrong(|g| g.clients.push(0)).contains("0 clients"));
        assert!(wrong(|g| g.clients.push(10_000)).contains("10000 clients"));
        assert!(wrong(|g| g.ways.push("tcp".to_owned())).contains("twice"));
        assert!(wrong(|g| g.runs = 0).contains("empty"));
        assert!(wrong(|g| g.runs = u32::MAX).contains("more than"));
        let mut most = grid();
        most.clients = vec![999];
        assert!(most.checked().is_ok());
    }

    #[test]
    fn client_counts_are_lists_and_ranges() {
        let parse = |text: &str| text.parse().map(|ClientCounts(counts)| counts);
        assert_eq!(parse("1,2,4"), Ok(vec![1, 2, 4]));
        assert_eq!(parse("1-3,13"), Ok(vec![1, 2, 3, 13]));
        for text in ["", "1,", "3-1", "-1", "1-", "x", "1..3", "+1", "99999"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
