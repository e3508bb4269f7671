//! Right-aligned tables of text, for terminals and files: no colours, no borders, no package.
//!
//! A table knows nothing of what stands in it. Text from outside is to be escaped before it comes
//! here; the table only keeps one cell from pushing its neighbours off the screen.

use std::fmt;

use crate::report::median_range::MedianRange;

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Numbers.
    Right,
    /// Words.
    Left,
}

/// A table that grows by rows and is shown by `Display`, each line ended.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Clone, Debug)]
struct Column {
    heading: &'static str,
    align: Align,
}

/// Widest cell, columns of the terminal; a longer one ends in `...`. The last column of a row is
/// never cut.
pub const CELL_MAX: usize = 32;

const GAP: &str = "  ";

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
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        let columns = columns.iter().map(|&(heading, align)| Column { heading, align }).collect();
        Self { columns, rows: Vec::new() }
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
            clip(cell);
        }
        self.rows.push(cells);
    }

    /// True when the table has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn widths(&self) -> Vec<usize> {
        let width = |(at, column): (usize, &Column)| {
            let heading = column.heading.lines().map(width);
            let cells = self.rows.iter().map(|row| width(&row[at]));
            heading.chain(cells).max().unwrap_or(0)
        };
        self.columns.iter().enumerate().map(width).collect()
    }

    fn line<'a>(
        &self,
        f: &mut fmt::Formatter<'_>,
        widths: &[usize],
        cells: impl Iterator<Item = &'a str>,
    ) -> fmt::Result {
        let mut line = String::new();
        for ((cell, column), &wide) in cells.zip(&self.columns).zip(widths) {
            let blanks = " ".repeat(wide - width(cell));
            match column.align {
                Align::Right => line.extend([&blanks, cell, GAP]),
                Align::Left => line.extend([cell, &blanks, GAP]),
            }
        }
        writeln!(f, "{}", line.trim_end())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let headings = || self.columns.iter().map(|column| column.heading);
        let height = headings().map(|text| text.lines().count()).max();
        let height = height.unwrap_or(0);
        for level in 0..height {
            // Short headings stand on the floor of the heading.
            let cells = headings().map(|text| {
                let above = height - text.lines().count();
                let own = level.checked_sub(above);
                own.and_then(|own| text.lines().nth(own)).unwrap_or("")
            });
            self.line(f, &widths, cells)?;
        }
        let rules: Vec<String> = widths.iter().map(|&wide| "-".repeat(wide)).collect();
        self.line(f, &widths, rules.iter().map(String::as_str))?;
        self.rows.iter().try_for_each(|row| self.line(f, &widths, row.iter().map(String::as_str)))
    }
}

/// A value as a cell; `-` where there is none.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Three rows with the least, median and largest value of each column; their names are the first
/// cell. `columns` has the other columns: their values and the decimals that these are shown with,
/// or `None` for a column of empty cells.
pub(super) fn extremes(columns: Vec<Option<(Vec<f64>, usize)>>) -> [Vec<String>; 3] {
    let mut rows = ["low", "median", "high"].map(|name| vec![name.to_owned()]);
    for column in columns {
        let values = column.map(|(values, decimals)| {
            let range = MedianRange::of(values);
            let cell = |pick: fn(MedianRange) -> f64| {
                or_dash(range.map(|range| format!("{:.decimals$}", pick(range))))
            };
            [cell(|range| range.low), cell(|range| range.median), cell(|range| range.high)]
        });
        for (row, cell) in rows.iter_mut().zip(values.unwrap_or_default()) {
            row.push(cell);
        }
    }
    rows
}

/// Cuts `cell` to [`CELL_MAX`] columns, and says so.
fn clip(cell: &mut String) {
    const CUT: &str = "...";
    if width(cell) <= CELL_MAX {
        return;
    }
    while width(cell) > CELL_MAX - CUT.len() {
        cell.pop();
    }
    cell.push_str(CUT);
}

/// The columns of a terminal that `text` takes. Counts what names are really made of: accents
/// that stand on the letter before, East Asian letters and pictures that take two.
pub(super) fn width(text: &str) -> usize {
    let wide = |ch: char| match ch {
        '\u{300}'..='\u{36f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    };
    text.chars().map(wide).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_under_their_headings() {
        let mut table = Table::new(&[
            ("no", Align::Right),
            ("client\nbytes", Align::Right),
            ("name", Align::Left),
            ("why", Align::Left),
        ]);
        let mut row = |cells: [&str; 4]| table.row(cells.map(str::to_owned));
        row(["1", "1000000", "niño", ""]);
        row(["12", "-", "教室🎥", "cut"]);
        row(["3", "7", &"x".repeat(40), &"y".repeat(40)]);
        insta::assert_snapshot!(table.to_string(), @r#"
             client
        no    bytes  name                              why
        --  -------  --------------------------------  ----------------------------------------
         1  1000000  niño
        12        -  教室🎥                            cut
         3        7  xxxxxxxxxxxxxxxxxxxxxxxxxxxxx...  yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
        "#);
    }

    #[test]
    fn empty_table_is_its_heading() {
        let table = Table::new(&[("a", Align::Left), ("bb", Align::Right)]);
        assert!(table.is_empty());
        assert_eq!(table.to_string(), "a  bb\n-  --\n");
    }
}
