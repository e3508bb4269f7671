//! The networking lab's UDP protocol: one datagram a message, UTF-8, no end.
//!
//! ```text
//! client                               server
//! LIST                             ->
//!                                  <-  ['100mb.mp4', '250mb.mp4']
//! !CONFIG :100mb.mp4 :5            ->
//!                                  <-  Config set
//!                                  <-  or: File 100mb.mp4 does not exist
//!                                  <-  or: Invalid config format, ...
//! TRANSFER                         ->      from any port of the same address
//!                                  <-  the file's bytes, bare, at most 65,507 in a datagram
//! DISCONNECT                       ->      nothing is answered: it is the client's own affair
//! ```
//!
//! There is no end mark: a client ends after [`SILENCE`] without a datagram.

use std::time::Duration;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabRequest {
    /// The names of the files.
    List,
    /// The file that the next transfers send.
    Config {
        /// The file's name as the client wrote it, without blanks around it.
        file: String,
        /// How many sub-clients it will start.
        clients: u16,
    },
    /// A configuration that cannot be understood.
    BadConfig,
    /// Send the file here.
    Transfer,
    /// It is done.
    Disconnect,
}

/// The answer to a good configuration.
pub const CONFIG_SET: &str = "Config set";

/// The answer to one that cannot be understood.
pub const BAD_CONFIG: &str = "Invalid config format, say !CONFIG :<file> :<number of clients>";

/// After so long without a datagram a client takes its file for ended.
pub const SILENCE: Duration = Duration::from_secs(5);

/// Longest request, bytes.
pub const REQUEST_MAX: usize = 1024;

const CONFIG: &str = "!CONFIG";

impl LabRequest {
    /// Reads a datagram; `None` when it is no request.
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        if datagram.len() > REQUEST_MAX {
            return None;
        }
        let text = std::str::from_utf8(datagram).ok()?.trim();
        match text {
            "LIST" => Some(Self::List),
            "TRANSFER" => Some(Self::Transfer),
            "DISCONNECT" => Some(Self::Disconnect),
            _ => {
                let rest = text.strip_prefix(CONFIG)?;
                Some(Self::config(rest).unwrap_or(Self::BadConfig))
            }
        }
    }

    /// Reads ` :<file> :<n>`. A name may hold colons: the number follows the last one.
    fn config(rest: &str) -> Option<Self> {
        let (file, number) = rest.trim().strip_prefix(':')?.rsplit_once(':')?;
        let (file, number) = (file.trim(), number.trim());
        let decimal = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let clients = number.parse().ok().filter(|&clients| decimal && clients > 0)?;
        (!file.is_empty()).then(|| Self::Config { file: file.to_owned(), clients })
    }

    /// The request as its datagram.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::List => b"LIST".to_vec(),
            Self::Config { file, clients } => format!("{CONFIG} :{file} :{clients}").into_bytes(),
            Self::BadConfig => CONFIG.as_bytes().to_vec(),
            Self::Transfer => b"TRANSFER".to_vec(),
            Self::Disconnect => b"DISCONNECT".to_vec(),
        }
    }
}

/// The list of files, as Python shows one: `['a', 'b']`.
pub fn encode_list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.map(quote).collect();
    format!("[{}]", quoted.join(", "))
}

/// A name in the quotes that Python would choose.
fn quote(name: &str) -> String {
    let mark = if name.contains('\'') && !name.contains('"') { '"' } else { '\'' };
    let mut quoted = String::from(mark);
    for ch in name.chars() {
        if ch == mark || ch == '\\' {
            quoted.push('\\');
        }
        quoted.push(ch);
    }
    quoted.push(mark);
    quoted
}

/// Reads such a list; `None` when it is none.
pub fn decode_list(text: &str) -> Option<Vec<String>> {
    let mut rest = text.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
    let mut names = Vec::new();
    while !rest.is_empty() {
        let mut chars = rest.char_indices();
        let (_, mark) = chars.next().filter(|(_, mark)| matches!(mark, '\'' | '"'))?;
        let mut name = String::new();
        let mut end = None;
        while let Some((at, ch)) = chars.next() {
            match ch {
                '\\' => name.push(chars.next()?.1),
                _ if ch == mark => {
                    end = Some(at + 1);
                    break;
                }
                _ => name.push(ch),
            }
        }
        names.push(name);
        rest = rest[end?..].trim();
        match rest.strip_prefix(',') {
            Some(more) if !more.trim().is_empty() => rest = more.trim(),
            Some(_) => return None,
            None if rest.is_empty() => {}
            None => return None,
        }
    }
    Some(names)
}

/// The answer to a configuration with a file that is not offered.
pub fn no_such_file(file: &str) -> String {
    format!("File {file} does not exist")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_with_blanks_where_they_may_be() {
        let config =
            |file: &str, clients| Some(LabRequest::Config { file: file.to_owned(), clients });
        for (text, wanted) in [
            ("LIST", Some(LabRequest::List)),
            ("TRANSFER", Some(LabRequest::Transfer)),
            ("DISCONNECT", Some(LabRequest::Disconnect)),
            ("!CONFIG :100mb.mp4 :5", config("100mb.mp4", 5)),
            ("!CONFIG : 100mb.mp4 : 5 ", config("100mb.mp4", 5)),
            ("!CONFIG :100mb.mp4:25", config("100mb.mp4", 25)),
            ("!CONFIG :a:b c.txt :1", config("a:b c.txt", 1)),
            ("!CONFIG", Some(LabRequest::BadConfig)),
            ("!CONFIG 100mb.mp4 5", Some(LabRequest::BadConfig)),
            ("!CONFIG :100mb.mp4", Some(LabRequest::BadConfig)),
            ("!CONFIG :100mb.mp4 :0", Some(LabRequest::BadConfig)),
            ("!CONFIG :100mb.mp4 :-1", Some(LabRequest::BadConfig)),
            ("!CONFIG :100mb.mp4 :70000", Some(LabRequest::BadConfig)),
            ("!CONFIG : :5", Some(LabRequest::BadConfig)),
            ("list", None),
            ("", None),
            ("GET / HTTP/1.1", None),
        ] {
            assert_eq!(LabRequest::decode(text.as_bytes()), wanted, "{text}");
        }
        assert_eq!(LabRequest::decode(b"\xff\xfe"), None);
        assert_eq!(LabRequest::decode(&[b' '; REQUEST_MAX + 1]), None);
        assert!(BAD_CONFIG.starts_with("Invalid config format"));
    }

    #[test]
    fn file_list_is_printed_as_in_the_lab() {
        let names = ["100mb.mp4", "250mb.mp4", "it's", "a\\b", "\"'"];
        let list = encode_list(names.into_iter().take(2));
        assert_eq!(list, "['100mb.mp4', '250mb.mp4']");
        assert_eq!(encode_list([].into_iter()), "[]");
        for count in 0..=names.len() {
            let list = encode_list(names.into_iter().take(count));
            assert_eq!(decode_list(&list).expect("ours"), names[..count], "{list}");
        }
        for wrong in ["", "[", "['a'", "['a',]", "[a]", "['a' 'b']", "['a", "['a\\"] {
            assert_eq!(decode_list(wrong), None, "{wrong}");
        }
    }
}
