//! How the tables of sessions are laid out.

/// How wide a table may be, and in which unit its rates are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// Columns of the terminal; `None` has room for all that a table has.
    pub width: Option<usize>,
    /// The unit of its rates.
    pub unit: RateUnit,
}

/// The unit of the rates in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum RateUnit {
    /// 10^6 bits a second
    #[default]
    Mbit,
    /// 10^6 bytes a second
    Mb,
    /// A column for each
    Both,
}

impl From<Option<usize>> for Layout {
    fn from(width: Option<usize>) -> Self {
        Self { width, ..Self::default() }
    }
}

impl RateUnit {
    /// True when a table has the column of this heading.
    pub(super) fn has(self, heading: &str) -> bool {
        self == Self::Both || !heading.ends_with(if self == Self::Mb { "Mbit/s" } else { "MB/s" })
    }

    /// A rate of so many Mbit/s.
    pub(super) fn text(self, mbit: f64) -> String {
        match self {
            Self::Mbit => format!("{mbit:.3} Mbit/s"),
            Self::Mb => format!("{:.3} MB/s", mbit / 8.0),
            Self::Both => Self::Mbit.text(mbit) + ", " + &Self::Mb.text(mbit),
        }
    }
}
