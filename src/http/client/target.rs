//! What is fetched by HTTP, and from where.

use crate::{
    error::{Error, Result},
    proto::{
        http::{text, url::Url},
        percent,
    },
    text::FileName,
};

/// What is fetched by HTTP, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTarget {
    /// The server, as a Host field names it.
    pub host: String,
    /// The path, percent-encoded.
    pub path: String,
    /// Where the file is on another server than a gatecast, if `path` does not exist there.
    pub other_path: Option<String>,
    /// The name of the copy.
    pub name: FileName,
}

impl HttpTarget {
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

    /// What an `http://` URL names. Its query is not sent.
    ///
    /// # Errors
    /// The URL is invalid, or does not end in a file name.
    pub fn url(text: &str) -> Result<Self> {
        let url = Url::parse(text).map_err(|error| match error {
            Error::Refused { reason, .. } => Error::usage(reason),
            other => other,
        })?;
        let name = percent::decode(url.last_segment())
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|name| FileName::new(&name).ok());
        let name = name.ok_or_else(|| {
            let url = crate::text::escape(text);
            Error::usage(format_args!(
                "invalid URL '{url}': expected a path that ends in a file name"
            ))
        })?;
        Ok(Self { path: url.path().to_owned(), other_path: None, name, host: url.host })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_made_from_a_file_or_a_url() {
        let name = FileName::new("a b%.bin").expect("plain");
        let target = HttpTarget::file("h:1", &name);
        assert_eq!(target.path, "/files/a%20b%25.bin");
        assert_eq!(target.other_path.as_deref(), Some("/a%20b%25.bin"));
        let target = HttpTarget::url("http://h:1/x/a%20b.bin?q#f").expect("a URL");
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
            assert!(HttpTarget::url(url).is_err(), "{url}");
        }
    }
}
