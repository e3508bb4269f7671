//! From the offer to an open part: what a client does on its disk before READY.

use std::{sync::Arc, time::Duration};

use crate::{
    client::{
        config::FetchConfig,
        download::{Download, DownloadSpec, Proof},
        messages::OFFER_LIMIT,
        part::{ByteOrder, PartSpec},
        run::FetchRun,
        tree_part::{DESCRIPTORS, TreeSpec},
    },
    digest::Hasher,
    error::{Error, Phase, Result},
    net::{clock, line_stream::LineStream, socket},
    proto::{
        manifest::{ENTRIES_MAX, Entry, MANIFEST_MAX, Manifest, ManifestBuilder},
        native::{FromClient, Offer},
    },
    text::FileName,
};

/// How long a line of a manifest may take on average.
const LINE_LIMIT: Duration = Duration::from_millis(1);

impl FetchRun {
    /// Opens the part of client `number` for what is offered, in `order`: that of a file, or, once its
    /// manifest is read, that of a folder.
    pub(super) fn open_part(
        &self,
        config: &FetchConfig,
        number: u16,
        offer: &Offer,
        order: ByteOrder,
        lines: &mut LineStream<'_>,
    ) -> Result<Download> {
        let (info, name) = (&offer.file, &config.copy_name(offer.seat, &offer.file.name)?);
        if let Some(entries) = offer.tree {
            if !config.takes_trees() {
                let what = format!("offered the folder '{}' to a client of files", info.name);
                return Err(Error::protocol(lines.peer, what));
            }
            return self.open_tree(config, number, (offer, entries, name), lines);
        }
        let spec = DownloadSpec {
            part: PartSpec {
                folder: &config.out,
                name,
                bytes: info.bytes,
                identity: info.sha1,
                client: number,
                order,
                resume: config.resume,
                replace: config.replaces(),
                in_place: config.is_in_place(),
            },
            proof: Proof::Sha1(info.sha1),
            clients: config.clients,
        };
        Download::open(&spec, |bytes| self.send_alive(lines, bytes))
    }

    fn open_tree(
        &self,
        config: &FetchConfig,
        number: u16,
        (offer, entries, name): (&Offer, usize, &FileName),
        lines: &mut LineStream<'_>,
    ) -> Result<Download> {
        let (manifest, read) = read_manifest(lines, entries)?;
        if manifest.bytes() != offer.file.bytes {
            let what = format!("a folder of {} bytes, not {}", manifest.bytes(), offer.file.bytes);
            return Err(Error::protocol(lines.peer, what));
        }
        // What it cannot have, the client that has too few will say.
        socket::descriptors(u64::from(config.clients) * DESCRIPTORS + 64);
        let spec = TreeSpec {
            folder: &config.out,
            name,
            offered: &offer.file.name,
            manifest: self.shared(manifest),
            sha1: offer.file.sha1,
            client: number,
            resume: config.resume,
            replace: config.replaces_folder(),
        };
        Download::open_tree(&spec, config.clients, read, |bytes| self.send_alive(lines, bytes))
    }

    /// A sign of life while a part is made or hashed before READY.
    pub(super) fn send_alive(&self, lines: &LineStream<'_>, bytes: u64) -> Result<()> {
        self.may_go_on()?;
        lines.write_line(&FromClient::Alive { bytes }.encode())
    }
}

/// Reads a manifest of so many lines, and feeds them to the hasher that is returned.
fn read_manifest(lines: &mut LineStream<'_>, entries: usize) -> Result<(Arc<Manifest>, Hasher)> {
    let many = u32::try_from(entries.min(ENTRIES_MAX)).unwrap_or(u32::MAX);
    let deadline = clock::now().after(OFFER_LIMIT).after(LINE_LIMIT * many);
    let (mut builder, mut hasher, mut len) = (ManifestBuilder::default(), Hasher::default(), 0);
    for _ in 0..entries {
        let line = lines.read_line(deadline, Phase::Offer)?;
        let wrong = |what: String| Error::protocol(lines.peer, what);
        len += line.len() + 1;
        if len > MANIFEST_MAX {
            return Err(wrong(format!("a list longer than {MANIFEST_MAX} bytes")));
        }
        let added = Entry::decode(&line).and_then(|entry| builder.add(entry));
        added.map_err(|error| wrong(error.to_string()))?;
        hasher.update(line.as_bytes());
        hasher.update(b"\n");
    }
    Ok((Arc::new(builder.finish()), hasher))
}
