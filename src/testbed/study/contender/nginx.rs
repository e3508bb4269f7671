//! nginx with one curl on each host: what people use today, measured the same way.
//!
//! It has no gate. The curls are started first and each waits for its orders on standard input;
//! these are then written to all of them at once, which is as close to a gate as they come. A
//! curl's own clock starts only when it has read its orders, so a client's time is taken from the
//! last write to its copy, as the file system has it.

use std::{fs, io::Write, net::SocketAddr, sync::atomic::AtomicBool, time::SystemTime};

use crate::{
    error::{Error, Result},
    testbed::{
        star::tool,
        study::{
            bound::Bound,
            contender::{Contender, Observed, RunSpec},
            process_group::ProcessGroup,
        },
    },
};

/// The rival.
#[derive(Clone, Copy, Debug)]
pub struct Nginx;

const PORT: u16 = 8081;

impl Contender for Nginx {
    fn name(&self) -> &str {
        "nginx"
    }

    fn bound(&self) -> Bound {
        Bound::Unicast
    }

    fn check(&self) -> Result<()> {
        tool::require("the study", "nginx", "nginx-light")?;
        tool::require("the study", "curl", "curl")?;
        Ok(())
    }

    fn run(&self, spec: &RunSpec<'_>, stop: &AtomicBool) -> Result<Observed> {
        let deadline = spec.deadline();
        let mut group = ProcessGroup::new(spec.folder, stop);
        let settings = spec.folder.join("nginx.conf");
        fs::write(&settings, configuration(spec)?)
            .map_err(Error::io("write nginx's settings", settings.display()))?;
        let mut nginx = tool::command("nginx");
        nginx.arg("-p").arg(spec.folder).arg("-c").arg(&settings);
        nginx.arg("-e").arg(spec.folder.join("nginx.log"));
        let server = group.start_server("nginx", spec.server, nginx, PORT, deadline)?;
        let mut clients = Vec::new();
        for (number, host) in (1..).zip(spec.clients) {
            let mut curl = tool::command("curl");
            curl.args(["--silent", "--show-error", "--fail", "--config", "-"]);
            clients.push(group.start(&format!("h{number}"), host, curl, true)?);
        }
        let released = release(spec, &mut group, &clients)?;
        let mut observed = Observed::default();
        if !group.wait_for_all(&clients, deadline)? {
            observed.trouble.push(spec.not_in_time());
        }
        group.stop(server)?;
        for (host, &place) in (1..).zip(&clients) {
            let copy = spec.folder.join(format!("h{host}.copy"));
            let seconds = group
                .ended(place)
                .filter(|end| end.status.success())
                .and_then(|_| copy.metadata().and_then(|about| about.modified()).ok())
                .and_then(|written| written.duration_since(released).ok())
                .map(|took| took.as_secs_f64());
            observed.add_copy(spec, (host, &copy), seconds, &group.last_error_line(place));
        }
        observed.cpu_server_s = group.cpu_s(&[server]);
        observed.cpu_clients_s = group.cpu_s(&clients);
        observed.sender = Some("nginx, sendfile".to_owned());
        Ok(observed)
    }
}

/// Lets all curls go, and says when the first went.
fn release(
    spec: &RunSpec<'_>,
    group: &mut ProcessGroup<'_>,
    places: &[usize],
) -> Result<SystemTime> {
    let url = format!("http://{}:{PORT}/{}", spec.server.address, file_name(spec)?);
    let mut inputs = Vec::new();
    for (number, &place) in (1..).zip(places) {
        let copy = spec.folder.join(format!("h{number}.copy"));
        let orders = format!("url = \"{url}\"\noutput = \"{}\"\n", copy.display());
        let pipe = group
            .take_stdin(place)
            .ok_or_else(|| Error::refused("curl", "it has no standard input"))?;
        inputs.push((pipe, orders));
    }
    let released = SystemTime::now();
    for (mut pipe, orders) in inputs {
        let _ = pipe.write_all(orders.as_bytes()); // A curl that has ended is found below.
        drop(pipe);
    }
    Ok(released)
}

fn file_name<'a>(spec: &RunSpec<'a>) -> Result<&'a str> {
    let name = spec.file.file_name().and_then(|name| name.to_str());
    let plain = |name: &&str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    name.filter(plain).ok_or_else(|| {
        let why = "nginx is measured with files of plain names only";
        Error::refused(spec.file.display(), why)
    })
}

fn configuration(spec: &RunSpec<'_>) -> Result<String> {
    file_name(spec)?;
    let root = spec.file.parent().unwrap_or(spec.folder).display();
    let (folder, address) = (spec.folder.display(), SocketAddr::from((spec.server.address, PORT)));
    Ok(format!(include_str!("nginx.conf"), folder = folder, address = address, root = root))
}
