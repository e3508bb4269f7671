//! A page: one document without outside resources. Its style and script carry a number that is new
//! each time, and the policy allows nothing else.

use crate::{
    net::http::guard,
    proto::http::{response::HttpResponse, text},
};

/// The page that shows `body`, which ends the style, by `script`, for a user who gets `token`.
pub fn document((body, script): (&str, &str), token: Option<&str>) -> HttpResponse {
    let nonce = guard::random_token();
    let style = concat!(include_str!("page/head.html"), include_str!("page/page.css"));
    let html = [style, body, include_str!("page/base.js"), script, "</script></body></html>\n"]
        .concat()
        .replace("{{nonce}}", &nonce)
        .replace("{{token}}", &text::html(token.unwrap_or_default()));
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    );
    HttpResponse::new(200, "text/html; charset=utf-8", html)
        .field("Content-Security-Policy", policy)
        .field("X-Frame-Options", "DENY")
}
