//! A star at work: built from its plan, and removed on every way out.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::clock,
    testbed::star::{
        check_stop, cleanup,
        host::Host,
        layout::{Loss, StarLayout},
        namespace, refused, rootless, setup,
        star_id::{StarId, StarNode},
        step,
        step::SetupStep,
        tool,
        tool::Tool,
    },
};

/// A star that exists. Dropping it removes it.
#[derive(Debug)]
pub struct Star {
    /// Its name.
    pub id: StarId,
    /// What was asked for.
    pub layout: StarLayout,
    /// Its hosts, the server first.
    pub hosts: Vec<Host>,
    /// The namespaces that we made, and so may remove.
    made: Vec<String>,
    kept: bool,
}

/// How long a new link may take to carry something, beside the delay that was asked for.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How soon what was swallowed is sent again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

impl Star {
    /// Builds a star. Its loss is not yet on: calibration comes first.
    ///
    /// # Errors
    /// A layout that cannot be, a program or right that is missing, a namespace of the same name,
    /// a command that failed, or `stop` was set; nothing is left behind then.
    pub fn build(layout: &StarLayout, stop: &AtomicBool) -> Result<Self> {
        Self::build_as(StarId::next(), layout, stop)
    }

    /// As [`build`](Self::build), under a name that the caller chose.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_as(id: StarId, layout: &StarLayout, stop: &AtomicBool) -> Result<Self> {
        layout.check()?;
        let steps = setup::up(&id, layout);
        needed(&steps, layout)?;
        let names = setup::namespaces(&id, layout);
        let there = namespace::names();
        if let Some(name) = names.iter().find(|name| there.contains(name)) {
            let why = format!("a namespace {name} exists already, and is not ours to touch");
            return Err(refused(why));
        }
        let mut star = Self {
            id,
            layout: layout.clone(),
            hosts: hosts(&id, layout),
            made: Vec::new(),
            kept: false,
        };
        // Namespaces first and by themselves: what exists after them is ours.
        let (make, fill) = steps.split_at(names.len());
        let made = step::run(make);
        let there = namespace::names();
        star.made = names.into_iter().filter(|name| there.contains(name)).collect();
        // Dropping the star removes what was made.
        made.map_err(|error| explained(error, stop))?;
        // In parts, so that a Ctrl-C is not kept waiting by a large star.
        for part in fill.chunk_by(|a, b| a.inside == b.inside) {
            check_stop(stop)?;
            step::run(part).map_err(|error| explained(error, stop))?;
        }
        star.wait_until_reachable(stop)?;
        Ok(star)
    }

    /// Waits until the server reaches every host. The system tells a bridge of a new link when it
    /// has time to, and until then swallows what was sent: a datagram too early is lost unseen.
    fn wait_until_reachable(&self, stop: &AtomicBool) -> Result<()> {
        let (server, clients) = self.hosts.split_first().expect("a star has a server");
        // An ARP request and its reply come first: two round trips.
        let trips = 4 * self.layout.delay;
        let limit = OPEN_TIMEOUT + trips;
        for client in clients {
            let deadline = clock::now().after(limit);
            while !server.reaches(client.address, RETRY_AFTER + trips)? {
                check_stop(stop)?;
                if clock::left(deadline).is_none() {
                    let (from, to, limit) = (server.address, client.address, limit.as_secs());
                    let why = format!("{to} was not reached from {from} within {limit} s");
                    return Err(refused(why));
                }
            }
        }
        Ok(())
    }

    /// Begins to lose packets as the layout asks; nothing when it asks for none.
    ///
    /// # Errors
    /// The packet filter refuses.
    pub fn start_loss(&self) -> Result<()> {
        self.layout.loss.map_or(Ok(()), |loss| self.start_loss_of(loss))
    }

    /// Begins to lose packets in another way than the layout's.
    ///
    /// # Errors
    /// The packet filter refuses.
    pub fn start_loss_of(&self, loss: Loss) -> Result<()> {
        step::run(&setup::loss(&self.id, &self.layout, loss))
    }

    /// Ends what [`start_loss_of`](Self::start_loss_of) began.
    ///
    /// # Errors
    /// There is no loss.
    pub fn end_loss(&self) -> Result<()> {
        step::run(&setup::no_loss(&self.id, &self.layout))
    }

    /// Packets that were on their way to a host since the loss began, and those that were dropped.
    ///
    /// # Errors
    /// There is no loss, or its counters cannot be read.
    pub fn filtered(&self, host: usize) -> Result<(u64, u64)> {
        let words = setup::list_counters(&self.layout);
        let middle = namespace::path_of(&self.id.namespace(StarNode::Center));
        let refused = |why: &str| Error::refused("`nft list counters`", why);
        let listed = namespace::enter(&middle, || tool::run(Tool::Nft, &words, ""))??
            .map_err(|why| refused(why.trim()))?;
        let counter = |name: String| {
            packets(&listed, &name).ok_or_else(|| refused(&format!("no counter {name}")))
        };
        Ok((counter(format!("seen{host}"))?, counter(format!("lost{host}"))?))
    }

    /// Leaves the star standing when this process ends.
    pub fn keep(mut self) -> StarId {
        self.kept = true;
        self.id
    }

    /// Removes it.
    ///
    /// # Errors
    /// Something of it could not be removed.
    pub fn down(mut self) -> Result<()> {
        let made = std::mem::take(&mut self.made);
        cleanup::remove(&made)
    }
}

impl Drop for Star {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = cleanup::remove(&self.made)
        {
            log::error!("{error}");
        }
    }
}

/// Checks programs and rights before anything is made.
fn needed(steps: &[SetupStep], layout: &StarLayout) -> Result<()> {
    let is_needed = |tool: &Tool| {
        let is_used = steps.iter().any(|step| step.tool() == Some(*tool));
        is_used || *tool == Tool::Nft && layout.loss.is_some()
    };
    for tool in Tool::ALL.into_iter().filter(is_needed) {
        tool.path()?;
    }
    if !rootless::is_root() {
        return Err(refused("it takes root, or a user namespace, to make network namespaces"));
    }
    Ok(())
}

/// Explains two refusals of the kernel that are hard to understand.
fn explained(error: Error, stop: &AtomicBool) -> Error {
    if stop.load(Ordering::Relaxed) {
        return Error::Interrupted; // What else goes wrong then is that.
    }
    let text = error.to_string();
    if text.contains("netem") && text.contains("unknown") {
        refused("a delay needs the kernel module sch_netem, which this kernel does not have")
    } else if text.contains("netns add") && text.contains("Operation not permitted") {
        refused(
            "this system does not let us make network namespaces (it takes CAP_SYS_ADMIN: root \
             that is not confined by a container)",
        )
    } else {
        error
    }
}

fn hosts(id: &StarId, layout: &StarLayout) -> Vec<Host> {
    let host = |(host, link): (usize, &_)| Host {
        namespace: namespace::path_of(&id.namespace(StarNode::Host(host))),
        address: layout.address(host),
        device: "eth0".to_owned(),
        link: *link,
    };
    layout.links.iter().enumerate().map(host).collect()
}

/// The packets of one counter in what `nft list counters` prints.
fn packets(listed: &str, name: &str) -> Option<u64> {
    let mut words = listed.split_ascii_whitespace();
    while let Some(word) = words.next() {
        if word == "counter" && words.next() == Some(name) {
            // `{ packets 12 bytes 3456 }`
            return words.nth(2)?.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let listed = "table bridge gatecast {\n\tcounter seen1 {\n\t\tpackets 12 bytes 3456\n\t}\n\
                      \tcounter seen10 {\n\t\tpackets 7 bytes 1\n\t}\n}\n";
        assert_eq!(packets(listed, "seen1"), Some(12));
        assert_eq!(packets(listed, "seen10"), Some(7));
        assert_eq!(packets(listed, "seen"), None);
        assert_eq!(packets("", "seen1"), None);
    }
}
