//! Text from outside, made safe to show and to log, and the two names that peers give us.
//!
//! Whatever a peer sends is bytes until it passes here. [`escape`] is the one way by which such
//! text reaches a terminal, a log line or a table; [`FileName`] is the one type that opens or
//! creates files, and only [`FileName::new`] makes it.

use std::{fmt, path::Path};

/// `Debug` for a type that holds what has none, or what nobody may see: its name, and these fields.
macro_rules! debug_fields {
    ($type:ident $(<$life:lifetime>)? $(, $field:ident)*) => {
        impl std::fmt::Debug for $type$(<$life>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut shown = f.debug_struct(stringify!($type));
                shown$(.field(stringify!($field), &self.$field))*.finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use debug_fields;

/// A file name that is one path component and nothing else: at most 255 bytes of UTF-8, without
/// separators, controls or direction marks, and neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

/// What a client calls itself: at most 64 bytes of UTF-8 of any kind, shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientName(String);

/// Why a name was refused; shown with the name, escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    name: String,
    why: &'static str,
}

/// Longest file name, bytes: what every common file system takes for one component.
pub const FILE_NAME_MAX: usize = 255;

/// Why Windows makes no file of a name.
const FORBIDDEN_ON_WINDOWS: &str = "on Windows no file may have the name of a device, a character \
    such as ':' or '?', or a dot or blank at its end";

/// Most bytes of a stranger's answer that are shown: a line of a terminal.
const EXCERPT_MAX: usize = 80;

/// Longest client name, bytes.
pub const CLIENT_NAME_MAX: usize = 64;

impl FileName {
    /// Checks `name`.
    ///
    /// # Errors
    /// Anything that is not one harmless path component.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let why = match name {
            "" => "it is empty",
            "." | ".." => "it names a folder",
            _ if name.len() > FILE_NAME_MAX => "it is longer than 255 bytes",
            _ if name.contains(['/', '\\']) => "it holds a path separator",
            _ if name.chars().any(is_unsafe) => "it holds a control character or direction mark",
            _ => return Ok(Self(name.to_owned())),
        };
        Err(NameError::new(name, why))
    }

    /// The name, as that of a file which this system is about to make.
    ///
    /// # Errors
    /// Windows takes it for a device's, or for another name.
    pub fn for_file_here(self) -> Result<Self, NameError> {
        if cfg!(windows) && is_other_on_windows(&self.0) {
            return Err(NameError::new(&self.0, FORBIDDEN_ON_WINDOWS));
        }
        Ok(self)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it begins with a dot.
    pub fn is_hidden(&self) -> bool {
        self.0.starts_with('.')
    }
}

impl ClientName {
    /// Checks `name`.
    ///
    /// # Errors
    /// An empty name, or one over [`CLIENT_NAME_MAX`] bytes.
    pub fn new(name: &str) -> Result<Self, NameError> {
        match name.len() {
            0 => Err(NameError::new(name, "it is empty")),
            1..=CLIENT_NAME_MAX => Ok(Self(name.to_owned())),
            _ => Err(NameError::new(name, "it is longer than 64 bytes")),
        }
    }

    /// The name as the client sent it, not safe to show.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `text` with every character that could forge a line, a column or a screen written as
/// `\u{..}`: C0, DEL, C1, line and paragraph separators, direction marks, `\` and `|`.
///
/// [`unescape`] gives the text back.
pub fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for ch in text.chars() {
        if is_unsafe(ch) || ch == '\\' || ch == '|' {
            shown.extend(ch.escape_unicode());
        } else {
            shown.push(ch);
        }
    }
    shown
}

/// A path as a message or a table shows it.
pub fn escape_path(path: &Path) -> String {
    let shown = escape(&path.display().to_string());
    // Windows has between two folders what an escape begins with.
    if cfg!(windows) { shown.replace("\\u{5c}", "\\") } else { shown }
}

/// The same, made only when it is shown.
#[derive(Clone, Copy, Debug)]
pub struct ShownPath<'a>(pub &'a Path);

impl fmt::Display for ShownPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape_path(self.0))
    }
}

/// Names to choose from, for a message: the first five, and how many more there are.
pub fn choice<'a>(names: impl Iterator<Item = &'a FileName>) -> String {
    let mut names = names.map(FileName::to_string);
    let first: Vec<_> = names.by_ref().take(5).collect();
    match names.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more (gatecast list shows them)", first.join(", ")),
    }
}

/// `names`, escaped, as many as `room` bytes hold and at least one, and how many more there are.
pub fn some_of<'a>(names: impl Iterator<Item = &'a str>, room: usize) -> String {
    let names: Vec<String> = names.map(escape).collect();
    let mut length = 0;
    let fits = names.iter().take_while(|name| {
        length += name.len() + 2;
        length <= room + 2
    });
    let (first, others) = names.split_at(fits.count().max(1).min(names.len()));
    let more =
        if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
    first.join(", ") + &more
}

/// The beginning of what a stranger sent, to be shown: ten words of its first line, escaped.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT_MAX)]);
    let words = text.trim_start().lines().next().unwrap_or_default().split_whitespace();
    escape(&words.take(10).collect::<Vec<_>>().join(" "))
}

/// Undoes [`escape`]; `None` when `shown` holds an escape that `escape` does not write.
pub fn unescape(shown: &str) -> Option<String> {
    let mut text = String::with_capacity(shown.len());
    let mut rest = shown;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let (digits, after) = rest[at..].strip_prefix("\\u{")?.split_once('}')?;
        if digits.is_empty() || digits.len() > 6 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        text.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

/// Reads a number of exactly `len` lower-case hexadecimal digits, 32 at most.
pub fn hexadecimal(text: &str, len: usize) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let number = Some(text).filter(|text| text.len() == len && text.bytes().all(is_digit))?;
    u128::from_str_radix(number, 16).ok()
}

/// True for characters that move a cursor, end a line or turn the direction of text.
pub fn is_unsafe(ch: char) -> bool {
    ch.is_control()
        || matches!(ch, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// True for names that Windows takes for a device's or for another name's: elsewhere they are as
/// good as any.
fn is_other_on_windows(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    let device = |known: &str| stem.eq_ignore_ascii_case(known);
    let numbered = |known: &str| {
        let (port, number) = stem.split_at_checked(3).unwrap_or_default();
        let mut number = number.chars();
        port.eq_ignore_ascii_case(known)
            && matches!(number.next(), Some('1'..='9' | '\u{b9}' | '\u{b2}' | '\u{b3}'))
            && number.next().is_none()
    };
    name.ends_with(['.', ' '])
        || name.contains([':', '*', '?', '"', '<', '>', '|'])
        || ["con", "prn", "aux", "nul", "conin$", "conout$"].into_iter().any(device)
        || ["com", "lpt"].into_iter().any(numbered)
}

impl NameError {
    fn new(name: &str, why: &'static str) -> Self {
        let mut shown: String = escape(name).chars().take(80).collect();
        if shown.len() < name.len() {
            shown.push_str("...");
        }
        Self { name: shown, why }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name '{}' is refused: {}", self.name, self.why)
    }
}

impl std::error::Error for NameError {}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape(&self.0))
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape(&self.0))
    }
}

/// `text` with its lines broken at blanks where they are longer than `limit` columns; they go on
/// after `more`.
pub fn wrapped(text: &str, limit: usize, more: &str) -> String {
    let mut all = String::new();
    for line in text.lines() {
        let (mut rest, mut indent) = (line, "");
        while width(indent) + width(rest) > limit {
            let mut taken = width(indent);
            let (mut blank, mut end) = (None, 0);
            for (at, ch) in rest.char_indices() {
                taken += width(ch.encode_utf8(&mut [0; 4]));
                if ch == ' ' && !rest[..at].trim().is_empty() {
                    blank = Some(at);
                }
                if taken > limit {
                    break;
                }
                end = at + ch.len_utf8();
            }
            let (here, next) = rest.split_at(blank.unwrap_or(end));
            all.extend([indent, here.trim_end(), "\n"]);
            (rest, indent) = (next.trim_start(), more);
        }
        all.extend([indent, rest, "\n"]);
    }
    all
}

/// The columns of a terminal that `text` takes. Counts what names are really made of: accents
/// that stand on the letter before, East Asian letters and pictures that take two.
pub fn width(text: &str) -> usize {
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
    fn only_one_plain_component_is_a_file_name() {
        let hostile = [
            "",
            ".",
            "..",
            "/etc/passwd",
            "a/b",
            "../x",
            "a\\b",
            "C:\\x",
            "a\0b",
            "a\nb",
            "\u{1b}[2J",
            "a\u{9b}b",
            "\u{202e}gpj.exe",
            "a\u{2028}b",
            &"x".repeat(256),
        ];
        for name in hostile {
            let error = FileName::new(name).expect_err(name).to_string();
            assert!(!error.chars().any(char::is_control), "{error:?}");
        }
        for name in [
            "a",
            "...",
            "..a",
            "100 MB.bin",
            "-rf",
            "%2e%2e",
            "$(reboot)",
            "niño.mp4",
            &"x".repeat(255),
        ] {
            assert_eq!(FileName::new(name).expect(name).as_str(), name);
        }
    }

    #[test]
    fn names_that_windows_forbids_make_no_file_there_alone() {
        for name in [
            "CON",
            "con.txt",
            "NUL .x",
            "Com1",
            "lpt9.log",
            "LPT\u{b2}",
            "conin$",
            "a.",
            "a ",
            "a:b",
            "a?",
            "<",
            ">",
            "\"",
            "|",
            "*",
        ] {
            assert!(is_other_on_windows(name), "{name}");
            // It can be offered, asked for and listed everywhere.
            let name = FileName::new(name).expect("one component");
            assert_eq!(name.clone().for_file_here().is_err(), cfg!(windows), "{name}");
        }
        let longest = "x".repeat(FILE_NAME_MAX);
        for name in [
            "console",
            "com0",
            "com10",
            "com",
            "a.con",
            "n\u{fc}l",
            "com\u{e9}",
            ".a",
            "a b",
            &longest,
        ] {
            assert!(!is_other_on_windows(name), "{name}");
            assert!(FileName::new(name).expect(name).for_file_here().is_ok(), "{name}");
        }
    }

    #[test]
    fn client_names_may_hold_anything_but_are_shown_escaped() {
        let name = ClientName::new("\u{1b}[2J<b>|\r\n").expect("short");
        assert_eq!(name.to_string(), "\\u{1b}[2J<b>\\u{7c}\\u{d}\\u{a}");
        assert!(ClientName::new("").is_err());
        assert!(ClientName::new(&"n".repeat(64)).is_ok());
        assert!(ClientName::new(&"n".repeat(65)).is_err());
    }

    #[test]
    fn names_that_find_no_room_are_counted() {
        let names = ["pc-01", "pc-02", "p|", "x"];
        let some = |count: usize, room| some_of(names.into_iter().take(count), room);
        assert_eq!(some(4, 99), "pc-01, pc-02, p\\u{7c}, x");
        assert_eq!(some(2, 12), "pc-01, pc-02");
        assert_eq!(some(2, 11), "pc-01 and 1 more");
        // None comes after one that was left out.
        assert_eq!(some(4, 17), "pc-01, pc-02 and 2 more");
        assert_eq!((some(1, 0), some(0, 9)), ("pc-01".to_owned(), String::new()));
    }

    #[test]
    fn excerpt_is_ten_words_of_first_line_escaped() {
        assert_eq!(excerpt(b"\r\nSSH-2.0-x\tDebian\r\nmore"), "SSH-2.0-x Debian");
        assert_eq!(excerpt(b"1 2 3 4 5 6 7 8 9 10 11"), "1 2 3 4 5 6 7 8 9 10");
        assert_eq!(excerpt(b"\x1b[2J\x00\xff|"), "\\u{1b}[2J\\u{0}\u{fffd}\\u{7c}");
        assert_eq!(excerpt(&[b'x'; 81]), "x".repeat(80));
        assert_eq!(excerpt(b""), "");
    }

    #[test]
    fn escaping_is_undone_exactly_and_forgeries_are_seen() {
        for text in ["", "plain", "a | b", "\\u{41}", "\u{9b}\u{85}\n", "ñ→🎥", "\u{2066}x\u{2069}"]
        {
            let shown = escape(text);
            assert!(!shown.contains(['\n', '|', '\u{9b}']), "{shown}");
            assert_eq!(unescape(&shown).as_deref(), Some(text));
        }
        for forged in ["\\", "\\n", "\\u{}", "\\u{110000}", "\\u{+1}", "\\u{12", "\\u{0000041}"] {
            assert_eq!(unescape(forged), None, "{forged}");
        }
    }

    #[test]
    fn path_shows_its_folders_and_hides_what_forges() {
        let shown = escape_path(&Path::new("a").join("b\n|"));
        let between = std::path::MAIN_SEPARATOR;
        assert_eq!(shown, format!("a{between}b\\u{{a}}\\u{{7c}}"));
    }
}
