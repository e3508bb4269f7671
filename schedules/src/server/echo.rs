//! No client here asks for echoes.

use std::sync::Arc;

use crate::{error::Result, net::line_stream::LineStream, server::lobby::Lobby};

#[derive(Debug, Default)]
pub struct EchoLimits;

pub fn serve(_: &mut LineStream<'_>, _: &Arc<Lobby>, _: &EchoLimits) -> Result<()> {
    unreachable!("nobody asks")
}
