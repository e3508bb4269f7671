//! The columns of the tables that have a row for each transfer, and how they are filled.

use crate::{
    report::{
        median_range::MedianRange,
        table::{Align, Column, ROWS_MAX, Rows, Table, or_dash},
    },
    transfer::{Record, Transfer},
};

/// One column: its heading, when it is there, and what stands in it.
pub(super) struct TransferColumn {
    pub(super) column: Column,
    pub(super) when: When,
    pub(super) cell: CellKind,
}

/// When a column is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// Where the way counts so.
    Counted,
    /// Where it is more than zero for a client.
    Positive,
    /// Where a client lost a datagram.
    Lost,
}

/// What stands in a column.
pub(super) enum CellKind {
    Word(fn(&Transfer) -> String),
    /// A number and its decimals.
    Figure(fn(&Transfer) -> Option<f64>, usize),
}

impl TransferColumn {
    /// A column of words, always there.
    pub(super) const fn words(column: Column, word: fn(&Transfer) -> String) -> Self {
        Self { column, when: When::Always, cell: CellKind::Word(word) }
    }

    /// A column of numbers with `decimals`.
    pub(super) const fn figures(
        (heading, rank): (&'static str, u8),
        when: When,
        decimals: usize,
        figure: fn(&Transfer) -> Option<f64>,
    ) -> Self {
        Self {
            column: (heading, Align::Right, rank),
            when,
            cell: CellKind::Figure(figure, decimals),
        }
    }

    fn is_there(&self, record: &Record) -> bool {
        let any = |is_so: &dyn Fn(Option<f64>) -> bool| match self.cell {
            CellKind::Word(_) => true,
            CellKind::Figure(figure, _) => record.transfers.iter().map(figure).any(is_so),
        };
        match self.when {
            When::Always => true,
            When::Counted => any(&|value| value.is_some()),
            When::Positive => any(&|value| value > Some(0.0)),
            When::Lost => record.transfers.iter().any(|one| one.counts.lost > Some(0)),
        }
    }

    fn cell(&self, transfer: &Transfer) -> String {
        match self.cell {
            CellKind::Word(word) => word(transfer),
            CellKind::Figure(figure, decimals) => shown(figure(transfer), decimals),
        }
    }
}

/// Those of `columns` that are there, with a row for each transfer of `record`. Where not all have
/// one, `is_shown` says which do, and the least, median and largest of each figure over all stand
/// below; these need not be of one transfer.
pub(super) fn filled<'a>(
    record: &Record,
    columns: impl IntoIterator<Item = &'a TransferColumn>,
    rows: Rows,
    is_shown: fn(&Transfer) -> bool,
) -> Table {
    let columns: Vec<_> = columns.into_iter().filter(|column| column.is_there(record)).collect();
    let mut table = Table::new(&columns.iter().map(|column| column.column).collect::<Vec<_>>());
    let all = record.transfers.iter();
    let mut row = |transfer| table.row(columns.iter().map(|column| column.cell(transfer)));
    if !is_short(record, rows) {
        all.for_each(row);
        return table;
    }
    all.filter(|transfer| is_shown(transfer)).take(ROWS_MAX).for_each(&mut row);
    type Pick = fn(MedianRange) -> f64;
    let of_all: [(_, Pick); 3] = [
        ("low", |range| range.low),
        ("median", |range| range.median),
        ("high", |range| range.high),
    ];
    for (name, pick) in of_all {
        let cell = |column: &&TransferColumn| match column.cell {
            CellKind::Word(_) => String::new(),
            CellKind::Figure(figure, decimals) => {
                let range = MedianRange::of(record.transfers.iter().filter_map(figure));
                shown(range.map(pick), decimals)
            }
        };
        // The first column is the seats.
        table.row([name.to_owned()].into_iter().chain(columns[1..].iter().map(cell)));
    }
    table
}

/// True where not every transfer has a row.
pub(super) fn is_short(record: &Record, rows: Rows) -> bool {
    rows == Rows::Failures && record.transfers.len() > ROWS_MAX
}

/// A count as a figure; exact to 2^53, which no file reaches.
pub(super) fn count(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn shown(value: Option<f64>, decimals: usize) -> String {
    or_dash(value.map(|value| format!("{value:.decimals$}")))
}
