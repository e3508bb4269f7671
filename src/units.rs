//! Sizes, rates, durations and moments: how they are typed, held and shown.
//!
//! Sizes are typed with an explicit unit (`100MB` = 10^8 bytes, `100MiB` = 100 x 2^20), rates are
//! decimal bits per second (`100mbit`), durations carry `ms`, `s`, `m` or `h`. Anything else is an
//! error that names the value. Nothing here knows a clock; [`Moment`] only counts.

use std::{fmt, str::FromStr, time::Duration};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

/// A rate of payload, in bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u64);

/// A point on a process's (or host's) monotonic clock, in microseconds since that clock's epoch.
///
/// Two moments compare only when they come from the same clock; wall time is never one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

/// A value that is not what its place asks for, on the command line or in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue {
    what: &'static str,
    value: String,
    expected: String,
}

impl InvalidValue {
    /// `value`, as it was typed, is no valid `what`; `expected` would be.
    pub fn new(what: &'static str, value: &str, expected: impl Into<String>) -> Self {
        let value = value.chars().take(60).flat_map(char::escape_default);
        Self { what, value: value.collect(), expected: expected.into() }
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, value, expected } = self;
        write!(f, "invalid {what} '{value}': expected {expected}")
    }
}

impl std::error::Error for InvalidValue {}

impl Moment {
    /// The time from `earlier` to `self`; zero when `earlier` is the later one.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The moment `span` after this one.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }
}

impl Rate {
    /// Bytes per second.
    // Exact to 2^53 bit/s.
    pub fn bytes_per_second(self) -> f64 {
        self.0 as f64 / 8.0
    }

    /// Megabits (10^6 bits) per second.
    // Exact to 2^53 bit/s.
    pub fn mbit(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// The time that `bytes` take at this rate.
    pub fn time_for(self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(self.0.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The sum of numbers that others told, exact: as many as fit into memory cannot overflow it.
pub fn total(numbers: impl Iterator<Item = u64>) -> u128 {
    numbers.map(u128::from).sum()
}

/// The sum of numbers that others told, where the largest number stands for all that are larger.
pub fn total_saturating(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// A duration in whole microseconds, saturating.
pub fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// A duration as seconds with six decimals, `0.083120`: a small file on loopback takes few
/// microseconds, and `0.000` would be wrong.
pub fn decimal_seconds(span: Duration) -> String {
    let us = micros(span);
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// Megabits (10^6 bits) per second of `bytes` in `span`; `None` when either is zero: nothing
/// moved, so there was no rate.
pub fn mbit_per_second(bytes: u64, span: Duration) -> Option<f64> {
    let seconds = span.as_secs_f64();
    // u64 to f64 is exact to 2^53 bytes, nine petabytes.
    (seconds > 0.0 && bytes > 0).then(|| bytes as f64 * 8.0 / seconds / 1e6)
}

impl FromStr for Bytes {
    type Err = InvalidValue;

    /// Reads `100MB`, `64KiB`, `1.5GB`, `17B`; a bare number is refused, because nobody can see
    /// which unit was meant.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const UNITS: &[(&str, u64)] = &[
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
            ("kB", 1_000),
            ("KB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("TB", 1_000_000_000_000),
            ("B", 1),
        ];
        let wrong = "a number and a unit such as 100MB, 64KiB or 0B";
        scaled(text, UNITS).map(Self).ok_or_else(|| InvalidValue::new("size", text, wrong))
    }
}

impl FromStr for Rate {
    type Err = InvalidValue;

    /// Reads `100mbit`, `1gbit`, `500kbit`, `9600bit`, in letters of either case, for nobody means
    /// a thousandth of a bit; zero is refused.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        const UNITS: &[(&str, u64)] =
            &[("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000), ("bit", 1)];
        let wrong = "a number above 0 and a unit such as 100mbit or 1gbit";
        let bits = scaled(&text.to_ascii_lowercase(), UNITS).filter(|&bits| bits > 0);
        bits.map(Self).ok_or_else(|| InvalidValue::new("rate", text, wrong))
    }
}

/// Reads `60s`, `250ms`, `2m`, `1h`, `1.5s`.
///
/// # Errors
/// A value without a unit, of another unit, or longer than 10 years.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidValue> {
    // In nanoseconds, so that the decimal arithmetic is the one of sizes.
    const UNITS: &[(&str, u64)] = &[
        ("ms", 1_000_000),
        ("us", 1_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    const LONGEST_NS: u64 = 10 * 365 * 24 * 3_600_000_000_000 / 2;
    scaled(text, UNITS).filter(|&nanos| nanos <= LONGEST_NS).map(Duration::from_nanos).ok_or_else(
        || InvalidValue::new("duration", text, "a number and a unit such as 60s, 250ms or 2m"),
    )
}

/// `text` as a plain decimal with at most nine decimals, times the unit it ends with.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) =
        units.iter().find_map(|&(name, factor)| Some((text.strip_suffix(name)?, factor)))?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && decimals.is_empty()) || decimals.len() > 9 {
        return None;
    }
    if !(whole.bytes().chain(decimals.bytes())).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let mut value = u128::from(whole) * u128::from(unit);
    if !decimals.is_empty() {
        let fraction: u64 = decimals.parse().ok()?;
        let scale = 10_u128.pow(u32::try_from(decimals.len()).ok()?);
        value += u128::from(fraction) * u128::from(unit) / scale;
    }
    u64::try_from(value).ok()
}

impl fmt::Display for Bytes {
    /// The largest decimal unit that leaves a whole number or one decimal: `100 MB`, `1.5 kB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal(f, self.0, &["B", "kB", "MB", "GB", "TB"])
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal(f, self.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s"])
    }
}

fn decimal(f: &mut fmt::Formatter<'_>, value: u64, units: &[&str]) -> fmt::Result {
    let factors = (0..).map(|power| 1_000_u128.pow(power));
    let is_one = |(factor, _): &(u128, _)| *factor == 1 || u128::from(value) >= *factor;
    let (factor, unit) = factors.zip(units).take_while(is_one).last().expect("some unit");
    let tenths = u128::from(value) * 10 / factor;
    match tenths % 10 {
        0 => write!(f, "{} {unit}", tenths / 10),
        rest => write!(f, "{}.{rest} {unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_tell_is_summed_however_large() {
        let told = [u64::MAX, 1, u64::MAX];
        assert_eq!(total(told.into_iter()), 2 * u128::from(u64::MAX) + 1);
        assert_eq!(total_saturating(told.into_iter()), u64::MAX);
        assert_eq!(total_saturating([3, 4].into_iter()), 7);
    }

    #[test]
    fn sizes_are_decimal_or_binary_as_typed() {
        assert_eq!("100MB".parse(), Ok(Bytes(100_000_000)));
        assert_eq!("100MiB".parse(), Ok(Bytes(104_857_600)));
        assert_eq!("1.5GB".parse(), Ok(Bytes(1_500_000_000)));
        assert_eq!("0B".parse(), Ok(Bytes(0)));
        assert_eq!("18446744073709551615B".parse(), Ok(Bytes(u64::MAX)));
    }

    #[test]
    fn a_size_that_cannot_be_meant_is_refused_with_its_value() {
        for text in [
            "",
            "100",
            "MB",
            "-1MB",
            "+1MB",
            "1e309MB",
            "1..5MB",
            ".5MB",
            "5.MB",
            "16EiB",
            "0x10B",
            "100 MB",
            "18446744073709551616B",
            "99999999TB",
            "1.0000000001GB",
            "NaNB",
        ] {
            let error = text.parse::<Bytes>().expect_err(text);
            assert!(error.to_string().contains(&format!("'{text}'")), "{error}");
        }
    }

    #[test]
    fn rates_are_bits_and_durations_have_units() {
        assert_eq!("100mbit".parse(), Ok(Rate(100_000_000)));
        assert_eq!("9600bit".parse(), Ok(Rate(9600)));
        assert!("0mbit".parse::<Rate>().is_err());
        assert!("100MB".parse::<Rate>().is_err());
        assert_eq!(parse_duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["60", "s", "-1s", "1e3s", "999999999h", "inf"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_tells_the_time_of_bytes() {
        assert_eq!(Rate(8_000_000).time_for(1_000_000), Duration::from_secs(1));
        assert_eq!(mbit_per_second(1_000_000, Duration::from_secs(1)), Some(8.0));
        assert_eq!(mbit_per_second(1, Duration::ZERO), None);
        assert_eq!(mbit_per_second(0, Duration::from_secs(1)), None);
    }

    #[test]
    fn shown_as_people_write_them() {
        assert_eq!(Bytes(100_000_000).to_string(), "100 MB");
        assert_eq!(Bytes(1_234).to_string(), "1.2 kB");
        assert_eq!(Bytes(17).to_string(), "17 B");
        assert_eq!(Rate(100_000_000).to_string(), "100 Mbit/s");
    }
}
