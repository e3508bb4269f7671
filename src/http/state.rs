//! What all HTTP connections of a server share, and what a handler knows of its request.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    error::Result,
    http::{
        config::{Documents, ExtraRoutes, HttpConfig},
        feed::StateFeed,
        receipts::Receipts,
        replies::Replies,
    },
    net::{
        copy,
        http::{guard::AccessGuard, server, server::HttpConnection, subscribers::Subscribers},
    },
    proto::{
        greeting::Greeting,
        http::{
            head::HeadBuilder,
            request::{HttpMethod, HttpRequest},
            response::HttpResponse,
        },
    },
    server::{config::ServerConfig, downloads::Downloads, lobby::Lobby},
};

/// What all HTTP connections of one server share.
pub(super) struct HttpServer {
    pub(super) guard: AccessGuard,
    /// The files are closed, and all else is for the server's user.
    pub(super) closed: bool,
    pub(super) feed: StateFeed,
    pub(super) receipts: Receipts,
    pub(super) replies: Replies,
    pub(super) subscribers: Subscribers,
    pub(super) documents: Documents,
    pub(super) extra: Option<ExtraRoutes>,
    pub(super) method: copy::Method,
    pub(super) stall: Duration,
    pub(super) downloads: Arc<Downloads>,
    pub(super) counters: HttpCounters,
}

/// What the HTTP server counts of itself.
#[derive(Debug, Default)]
pub(super) struct HttpCounters {
    /// Each connection holds one more.
    pub(super) connections: Arc<()>,
    /// Responses by the first digit of their status, less one.
    pub(super) responses: [AtomicU64; 5],
}

/// One request, as its handler sees it.
pub(super) struct RequestContext<'a> {
    pub(super) server: &'a HttpServer,
    pub(super) lobby: &'a Arc<Lobby>,
    pub(super) connection: &'a mut HttpConnection,
    pub(super) request: &'a HttpRequest,
    pub(super) body: &'a [u8],
}

impl HttpServer {
    pub(super) fn new(
        settings: &ServerConfig,
        downloads: Arc<Downloads>,
        config: HttpConfig,
    ) -> Result<Self> {
        Ok(Self {
            closed: settings.closes(Greeting::Http),
            guard: AccessGuard::new(config.token, config.control_from, config.hosts),
            feed: StateFeed::new(config.documents),
            receipts: Receipts::default(),
            replies: Replies::default(),
            subscribers: Subscribers::default(),
            documents: config.documents,
            extra: config.extra,
            method: settings.copy.resolved()?,
            stall: settings.stall,
            downloads,
            counters: HttpCounters::default(),
        })
    }

    /// Begins a response's head with the fields that every response has, and counts it.
    pub(super) fn head(&self, status: u16, closes: bool) -> HeadBuilder {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.counters.responses[class].fetch_add(1, Ordering::Relaxed);
        server::head(status, closes).field("Gatecast", 1)
    }

    /// Sends `response`. A client that does not accept it is closed by its next read.
    pub(super) fn respond(
        &self,
        connection: &HttpConnection,
        response: &HttpResponse,
        without_body: bool,
    ) {
        let head = self.head(response.status, connection.closes).field("Cache-Control", "no-store");
        if let Err(error) = connection.respond(response, head, without_body) {
            log::debug!("{}: {error}", connection.peer);
        }
    }
}

impl RequestContext<'_> {
    /// True when the response has no body, because the request is a HEAD.
    pub(super) fn wants_head_only(&self) -> bool {
        self.request.method == HttpMethod::Head
    }

    /// Begins the head of the response, as [`HttpServer::head`].
    pub(super) fn head(&self, status: u16) -> HeadBuilder {
        self.server.head(status, self.connection.closes)
    }

    /// Sends `response`, as [`HttpServer::respond`].
    pub(super) fn respond(&self, response: &HttpResponse) {
        self.server.respond(self.connection, response, self.wants_head_only());
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.connection.stream
    }
}
