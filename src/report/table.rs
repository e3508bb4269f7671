//! Right-aligned tables of text, for terminals and files: no colours, no borders, no package.
//!
//! A table knows nothing of what stands in it. Text from outside is to be escaped before it comes
//! here; the table only keeps one cell from pushing its neighbours off the screen, and every row
//! within the width of the terminal: a row that the terminal wraps cannot be read.

pub use crate::proto::log_cell::or_missing as or_dash;

use crate::text::{self, width};

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Numbers.
    Right,
    /// Words.
    Left,
}

/// A column: its heading, its side, and its rank. A column of rank 0 is there at any width; of the
/// others the lowest come first, while there is room.
pub type Column = (&'static str, Align, u8);

/// A column, and what stands in it for a row of `T`.
pub type ColumnOf<T> = (&'static str, Align, u8, fn(&T) -> String);

/// A table that grows by rows and is shown by [`Table::fitted`], each line ended.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// Widest cell, columns of the terminal, which a SHA-1 needs; a longer one ends in `...`. The last
/// cell of a row is cut only where the terminal ends.
pub const CELL_MAX: usize = 40;

/// So much of a long last cell is shown before other columns get the room: how a transfer ended.
const LAST_CELL: usize = 32;

const GAP: &str = "  ";

/// What a cell or row ends in that is cut.
const CUT: &str = "...";

/// Where a line goes on that was broken.
const INDENT: &str = "    ";

/// The narrowest terminal that is written for; a narrower one wraps.
pub const WIDTH_MIN: usize = 40;

/// Which transfers of a session have a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Every transfer.
    All,
    /// In a session of more than [`ROWS_MAX`] transfers only those that failed, of these at most
    /// [`ROWS_MAX`], and the least, median and largest of each figure over all.
    Failures,
}

/// Most rows that [`Rows::Failures`] gives to transfers: what still reads on a screen or two.
pub const ROWS_MAX: usize = 50;

impl Table {
    /// A table without rows. A heading may have several lines.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// A table with a row for each of `rows`.
    pub fn of<'a, T: 'a>(columns: &[ColumnOf<T>], rows: impl IntoIterator<Item = &'a T>) -> Self {
        let headings = columns.iter().map(|&(heading, align, rank, _)| (heading, align, rank));
        let mut table = Self::new(&headings.collect::<Vec<_>>());
        for row in rows {
            table.row(columns.iter().map(|(.., cell)| cell(row)));
        }
        table
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When it has another number of cells than the table has columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        let last = cells.len().saturating_sub(1);
        for cell in &mut cells[..last] {
            clip(cell, CELL_MAX, CUT);
        }
        self.rows.push(cells);
    }

    /// True when the table has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table in `limit` columns of a terminal; with all that it has where there is no limit.
    /// What does not fit of a row's last cell stands below, once for all rows that end so.
    pub fn fitted(&self, limit: Option<usize>) -> String {
        let widths = self.widths();
        let shown = self.shown(&widths, limit);
        let limit = limit.unwrap_or(usize::MAX);
        let mut text = String::new();
        let mut line = |cells: &dyn Fn(usize) -> String, cut: &str| {
            let mut line = String::new();
            for &at in &shown {
                let cell = cells(at);
                let blanks = " ".repeat(widths[at] - width(&cell));
                match self.columns[at].1 {
                    Align::Right => line.extend([&blanks, &cell, GAP]),
                    Align::Left => line.extend([&cell, &blanks, GAP]),
                }
            }
            line.truncate(line.trim_end().len());
            let is_cut = clip(&mut line, limit, cut);
            text += &line;
            text.push('\n');
            is_cut
        };
        let headings = || shown.iter().map(|&at| self.columns[at].0);
        let height = headings().map(|text| text.lines().count()).max().unwrap_or(0);
        for level in 0..height {
            // Short headings stand on the floor of the heading.
            let heading = |at: usize| {
                let lines = self.columns[at].0.lines();
                let above = height - lines.clone().count();
                let own = level.checked_sub(above).and_then(|own| lines.clone().nth(own));
                own.unwrap_or("").to_owned()
            };
            line(&heading, "");
        }
        line(&|at| "-".repeat(widths[at]), "");
        let mut endings: Vec<(&str, Vec<&str>)> = Vec::new();
        for row in &self.rows {
            if !line(&|at| row[at].clone(), CUT) {
                continue;
            }
            let (first, ending) = (&row[0], &row[row.len() - 1]);
            let place = endings.iter().position(|(known, _)| known == ending);
            match place {
                Some(place) => endings[place].1.push(first),
                None if endings.len() < ROWS_MAX => endings.push((ending, vec![first])),
                None => {}
            }
        }
        for (ending, rows) in endings {
            let name = self.columns[0].0.replace('\n', " ");
            text += &wrapped(&format!("{name} {}: {ending}", rows.join(", ")), Some(limit));
        }
        text
    }

    /// The columns that `limit` has room for, by their places.
    fn shown(&self, widths: &[usize], limit: Option<usize>) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.columns.len()).collect();
        order.sort_by_key(|&at| self.columns[at].2);
        let limit = limit.unwrap_or(usize::MAX);
        let mut taken = 0;
        order.retain(|&at| {
            // A long last cell is cut before it takes the place of other columns.
            let is_last = at + 1 == self.columns.len();
            let wide = if is_last { widths[at].min(LAST_CELL) } else { widths[at] };
            let all = taken + wide + GAP.len();
            let fits = self.columns[at].2 == 0 || all <= limit.saturating_add(GAP.len());
            taken = if fits { all } else { taken };
            fits
        });
        order.sort_unstable();
        order
    }

    fn widths(&self) -> Vec<usize> {
        let width = |(at, column): (usize, &Column)| {
            let heading = column.0.lines().map(width);
            let cells = self.rows.iter().map(|row| width(&row[at]));
            heading.chain(cells).max().unwrap_or(0)
        };
        self.columns.iter().enumerate().map(width).collect()
    }
}

/// `text` with its lines broken at blanks where they are longer than `limit`.
pub fn wrapped(text: &str, limit: Option<usize>) -> String {
    text::wrapped(text, limit.unwrap_or(usize::MAX).max(WIDTH_MIN), INDENT)
}

/// Cuts `text` to `limit` columns, and ends it with `end`. True when it was longer.
pub(super) fn clip(text: &mut String, limit: usize, end: &str) -> bool {
    if width(text) <= limit {
        return false;
    }
    while width(text) > limit.saturating_sub(width(end)) {
        text.pop();
    }
    text.push_str(end);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[
            ("no", Align::Right, 0),
            ("client\nbytes", Align::Right, 2),
            ("name", Align::Left, 1),
            ("why", Align::Left, 0),
        ]);
        let mut row = |cells: [&str; 4]| table.row(cells.map(str::to_owned));
        row(["1", "1000000", "niño", ""]);
        row(["12", "-", "教室🎥", "cut"]);
        row(["3", "7", &"x".repeat(41), &"y".repeat(40)]);
        row(["4", "7", "z", &"y".repeat(40)]);
        table
    }

    #[test]
    fn cells_stand_under_their_headings() {
        insta::assert_snapshot!(table().fitted(None), @r#"
             client
        no    bytes  name                                      why
        --  -------  ----------------------------------------  ----------------------------------------
         1  1000000  niño
        12        -  教室🎥                                    cut
         3        7  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...  yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
         4        7  z                                         yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
        "#);
    }

    #[test]
    fn narrow_table_has_the_columns_of_low_rank() {
        assert_eq!(table().fitted(Some(95)), table().fitted(None));
        let headings = |width| table().fitted(Some(width)).lines().nth(1).map(str::to_owned);
        assert!(headings(87).is_some_and(|line| line.contains("bytes")), "its last cell is cut");
        assert!(headings(86).is_some_and(|line| !line.contains("bytes")));
        insta::assert_snapshot!(table().fitted(Some(44)), @r"
        no  why
        --  ----------------------------------------
         1
        12  cut
         3  yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
         4  yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
        ");
        insta::assert_snapshot!(table().fitted(Some(40)), @r"
        no  why
        --  ------------------------------------
         1
        12  cut
         3  yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy...
         4  yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy...
        no 3, 4:
            yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
            yyyy
        ");
    }

    #[test]
    fn long_lines_are_broken_at_blanks() {
        let long = "release skew        wake 96 us, server 58 us, client 239 us\nshort\n\nend\n";
        assert_eq!(wrapped(long, None), long);
        insta::assert_snapshot!(wrapped(long, Some(40)), @r"
        release skew        wake 96 us, server
            58 us, client 239 us
        short

        end
        ");
    }

    #[test]
    fn empty_table_is_its_heading() {
        let table = Table::new(&[("a", Align::Left, 0), ("bb", Align::Right, 0)]);
        assert!(table.is_empty());
        assert_eq!(table.fitted(None), "a  bb\n-  --\n");
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_wider_than_asked(
            cells in proptest::collection::vec("[a-z教0-9 ]{0,90}", 4),
            ranks in proptest::collection::vec(0_u8..4, 4),
            limit in WIDTH_MIN..=250,
        ) {
            let column = |at: usize| ("heading\nof it", Align::Left, ranks[at]);
            let mut table = Table::new(&[0, 1, 2, 3].map(column));
            table.row(cells.clone());
            let text = table.fitted(Some(limit)) + &wrapped(&cells.join(" "), Some(limit));
            for line in text.lines() {
                proptest::prop_assert!(width(line) <= limit, "{limit}: {line}");
            }
        }
    }
}
