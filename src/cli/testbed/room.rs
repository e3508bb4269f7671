//! `gatecast study --room`: runs on machines that ssh reaches, each of them a push.

use std::{path::Path, str::FromStr};

use crossbeam_channel::never;

use crate::{
    cli::{
        push::{self, Controls, ReachArgs},
        signals,
        ssh::FarConfig,
    },
    error::{Error, Result},
    net::hosts_file,
    proto::hosts::HostList,
    report::{json, verdict::Verdict},
    serve::ServerBuilder,
    server::config::ServerConfig,
    session::Via,
    testbed::study::{
        contender::{Observed, native},
        grid::{Cell, Grid},
        process_group,
    },
    text::{escape, escape_path},
};

/// The machines, and how they are reached.
pub(super) struct Room<'a> {
    hosts: HostList,
    reach: &'a ReachArgs,
    far: FarConfig<'a>,
    congestion: Option<String>,
    controls: Controls,
}

impl<'a> Room<'a> {
    /// The machines in the file at `path`.
    ///
    /// # Errors
    /// Its file is none or has fewer machines than the grid takes; a way is of another program; the
    /// system refuses to listen to signals.
    pub(super) fn open(
        path: &Path,
        reach: &'a ReachArgs,
        congestion: Option<String>,
        grid: &Grid,
    ) -> Result<Self> {
        let hosts = hosts_file::read(path)?;
        let (has, wanted) = (hosts.clients(), grid.most_clients());
        if has < wanted {
            let what = format!("{} has {has} hosts; the study takes {wanted}", escape_path(path));
            return Err(Error::usage(what));
        }
        for name in &grid.ways {
            let what = |error| format!("--via '{}' in a room: {error}", escape(name));
            Via::from_str(name).map_err(|error| Error::usage(what(error)))?;
        }
        Ok(Self {
            hosts,
            reach,
            far: FarConfig { discard: true, ..reach.config()? },
            congestion,
            controls: Controls { requests: signals::listen()?, enter: never() },
        })
    }

    /// Pushes `file` to the first machines. Its log is in `folder`.
    ///
    /// # Errors
    /// It could not be begun, or the user stopped it.
    pub(super) fn push(&self, cell: &Cell, file: &Path, folder: &Path) -> Result<Observed> {
        let via = Via::from_str(&cell.way).map_err(Error::usage)?;
        let builder = ServerBuilder {
            paths: vec![file.to_owned()],
            config: ServerConfig {
                via: Some(via),
                congestion: self.congestion.clone(),
                ..ServerConfig::default()
            },
            log_dir: Some(folder.to_owned()),
            ..ServerBuilder::default()
        };
        let (hosts, before) = (self.hosts.first(cell.clients), process_group::own_cpu_s());
        let pushed = push::session(hosts, builder, self.reach.listen, &self.far, &self.controls)?;
        if pushed.verdict == Verdict::Interrupted {
            return Err(Error::Interrupted);
        }
        let mut observed = Observed {
            cpu_server_s: Some(process_group::own_cpu_s() - before),
            trouble: pushed.failed,
            ..Observed::default()
        };
        // The roster gives each machine the seat of its place.
        let seat = |result: &serde_json::Value| {
            result["seat"].as_u64().and_then(|seat| usize::try_from(seat).ok()).unwrap_or(0)
        };
        if let Some(record) = &pushed.record {
            native::read(via, &json::session(record, None), &seat, &mut observed)?;
        }
        Ok(observed)
    }
}
