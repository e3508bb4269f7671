//! Which hosts a request may ask for. A page elsewhere can point its own name at our address (DNS
//! rebinding), and a browser then lets it read our answers.

use std::net::IpAddr;

use crate::{net::host_name, proto::http::request::HttpRequest};

/// True when the host that `request` asks for can only be this server: an address, `localhost`,
/// this machine's own name, or one of `names`.
pub fn is_ours(request: &HttpRequest, names: &[String]) -> bool {
    // Only HTTP/1.0 has no host, and no browser speaks it.
    request.host.as_deref().is_none_or(|host| is_our_name(host, names))
}

fn is_our_name(host: &str, names: &[String]) -> bool {
    if host.parse::<IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    if names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        return true;
    }
    let own = host_name::own().map(|own| own.to_ascii_lowercase());
    own.is_some_and(|own| host == own || host.strip_suffix(".local") == Some(&own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_known_by_address_and_own_names_only() {
        let names = ["teacher.lab".to_owned()];
        for host in ["127.0.0.1", "::1", "192.168.1.10", "localhost", "x.localhost", "teacher.lab"]
        {
            assert!(is_our_name(host, &names), "{host}");
        }
        for host in [
            "evil.example",
            "",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "lab",
            ".local",
        ] {
            assert!(!is_our_name(host, &names), "{host}");
        }
    }
}
