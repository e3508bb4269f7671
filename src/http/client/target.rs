//! What is fetched by HTTP, and where from.

use crate::error::Error;
use crate::error::Result;
use crate::proto::http::text;
use crate::proto::percent;
use crate::text::FileName;

/// What is fetched, and where from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The server as a Host field names it.
    pub host: String,
    /// The path, percent-encoded.
    pub path: String,
    /// Where the file is on a server that is no gatecast, when the path does not exist there.
    pub other_path: Option<String>,
    /// What the copy is called.
    pub name: FileName,
}

impl Target {
    /// `file` of the gatecast, or other server, at `host`.
    pub fn file(host: &str, file: &FileName) -> Self {
        let name = text::percent_encode(file.as_str());
        Self {
            host: host.to_owned(),
            path: format!("/files/{name}"),
            other_path: Some(format!("/{name}")),
            name: file.clone(),
        }
    }

    /// What an `http://` URL names.
    ///
    /// # Errors
    /// No such URL, or one that ends in no file name.
    pub fn url(url: &str) -> Result<Self> {
        let wrong = |why: &str| Err(Error::refused(crate::text::escape(url), why));
        let Some(rest) = url.strip_prefix("http://") else {
            return wrong("only http:// URLs can be fetched");
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) || host.is_empty() || host.contains('@')
        {
            return wrong("a URL is http://HOST[:PORT]/PATH, percent-encoded, without a user");
        }
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        let name = percent::decode(name)
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|name| FileName::new(&name).ok());
        let Some(name) = name else {
            return wrong("its path ends in no file name");
        };
        Ok(Self {
            host: host.to_owned(),
            path: format!("/{path}"),
            other_path: None,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_file_or_a_url() {
        let name = FileName::new("a b%.bin").expect("plain");
        let target = Target::file("h:1", &name);
        assert_eq!(target.path, "/files/a%20b%25.bin");
        assert_eq!(target.other_path.as_deref(), Some("/a%20b%25.bin"));
        let target = Target::url("http://h:1/x/a%20b.bin?q#f").expect("a URL");
        assert_eq!((&*target.host, &*target.path), ("h:1", "/x/a%20b.bin"));
        assert_eq!(target.name.as_str(), "a b.bin");
        for url in [
            "https://h/a",
            "ftp://h/a",
            "http:///a",
            "http://h",
            "http://h/",
            "http://h/a/",
            "http://h/%2e%2e",
            "http://h/a%2fb",
            "http://u@h/a",
            "http://h/a b",
            "http://h/%00",
        ] {
            assert!(Target::url(url).is_err(), "{url}");
        }
    }
}
