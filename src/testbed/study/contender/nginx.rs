//! nginx with one curl on each host: what people use today, measured the same way.
//!
//! It has no gate. The curls are started first and each waits for its orders on standard input;
//! these are then written to all of them at once, which is as close to a gate as they come. A
//! curl's own clock starts only when it has read its orders, so a client's time is taken from the
//! last write to its copy, as the file system has it.

use std::io::Write;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use crate::digest::Digest;
use crate::error::Error;
use crate::error::Result;
use crate::net::clock;
use crate::testbed::star::tool;
use crate::testbed::study::bound::Bound;
use crate::testbed::study::contender::Carrier;
use crate::testbed::study::contender::Contender;
use crate::testbed::study::contender::Observed;
use crate::testbed::study::contender::RunSpec;
use crate::testbed::study::contender::SeatReport;
use crate::testbed::study::process_group::ProcessGroup;

/// The rival.
#[derive(Clone, Copy, Debug)]
pub struct Nginx;

/// What it is called in tables.
pub const NAME: &str = "nginx";

const PORT: u16 = 8081;

impl Contender for Nginx {
    fn name(&self) -> &str {
        NAME
    }

    fn bound(&self) -> Bound {
        Bound::Unicast
    }

    fn carrier(&self) -> Carrier {
        Carrier::Tcp
    }

    fn check(&self) -> Result<()> {
        for (program, package) in [("nginx", "nginx-light"), ("curl", "curl")] {
            if tool::find(program).is_none() {
                return Err(Error::refused(
                    "the study",
                    format!(
                        "the program `{program}` is missing; Debian has it in package {package}"
                    ),
                ));
            }
        }
        Ok(())
    }

    fn run(&self, job: &RunSpec<'_>, stop: &AtomicBool) -> Result<Observed> {
        let deadline = clock::now().after(job.limit);
        let mut group = ProcessGroup::new(job.folder);
        let settings = job.folder.join("nginx.conf");
        std::fs::write(&settings, configuration(job)?)
            .map_err(Error::io("write nginx's settings", settings.display()))?;
        let program = |name: &str| tool::find(name).unwrap_or_else(|| name.into());
        let mut nginx = Command::new(program("nginx"));
        nginx.arg("-p").arg(job.folder).arg("-c").arg(&settings);
        nginx.arg("-e").arg(job.folder.join("nginx.log"));
        let server = group.start("nginx", job.server, &mut nginx, false)?;
        let is_up = group.wait(deadline, stop, |group| {
            Ok(group.ended(server).is_some() || job.server.listens(PORT)?)
        })?;
        if !is_up || group.ended(server).is_some() {
            let why = group.last_error_line(server);
            return Err(Error::refused("nginx", format!("it did not start: {why}")));
        }
        let mut places = Vec::new();
        for (number, host) in (1..).zip(job.clients) {
            let mut curl = Command::new(program("curl"));
            curl.args(["--silent", "--show-error", "--fail", "--config", "-"]);
            places.push(group.start(&format!("h{number}"), host, &mut curl, true)?);
        }
        let released = release(job, &mut group, &places)?;
        let ended = group.wait(deadline, stop, |group| {
            Ok(places.iter().all(|&place| group.ended(place).is_some()))
        })?;
        let mut observed = Observed::default();
        if !ended {
            let limit = job.limit.as_secs();
            observed
                .trouble
                .push(format!("it did not end within {limit} s"));
        }
        group.stop(server)?;
        for (number, &place) in (1..).zip(&places) {
            let seat = seat(job, &group, number, place, released);
            if seat.verified != Some(true) {
                let why = group.last_error_line(place);
                observed
                    .trouble
                    .push(format!("client {number}: {}: {why}", seat.outcome));
            }
            observed.seats.push(seat);
        }
        observed.makespan_s = observed.seconds().reduce(f64::max);
        observed.cpu_server_s = group.ended(server).map(|end| end.cpu_s);
        let cpu = places.iter().map(|&place| Some(group.ended(place)?.cpu_s));
        observed.cpu_clients_s = cpu.sum();
        observed.sender = Some("nginx, sendfile".to_owned());
        Ok(observed)
    }
}

/// Lets all curls go, and says when the first went.
fn release(job: &RunSpec<'_>, group: &mut ProcessGroup, places: &[usize]) -> Result<SystemTime> {
    let url = format!("http://{}:{PORT}/{}", job.server.address, file_name(job)?);
    let mut inputs = Vec::new();
    for (number, &place) in (1..).zip(places) {
        let copy = job.folder.join(format!("h{number}.copy"));
        let orders = format!("url = \"{url}\"\noutput = \"{}\"\n", copy.display());
        let pipe = group
            .take_stdin(place)
            .ok_or_else(|| Error::refused("curl", "it has no standard input"))?;
        inputs.push((pipe, orders));
    }
    let released = SystemTime::now();
    for (mut pipe, orders) in inputs {
        // One that has died already is found out below.
        let _ = pipe.write_all(orders.as_bytes());
        drop(pipe);
    }
    Ok(released)
}

/// What one curl got, by the last write to its copy and our own digest of it.
fn seat(
    job: &RunSpec<'_>,
    group: &ProcessGroup,
    host: usize,
    place: usize,
    released: SystemTime,
) -> SeatReport {
    let is_done = group.ended(place).is_some_and(|end| end.status.success());
    let copy = job.folder.join(format!("h{host}.copy"));
    let about = copy.metadata().ok();
    let digest = std::fs::File::open(&copy).and_then(Digest::of_reader).ok();
    let written = about.as_ref().and_then(|about| about.modified().ok());
    let took = written.and_then(|at| at.duration_since(released).ok());
    let outcome = match (is_done, digest == Some(job.sha1)) {
        (true, true) => "complete",
        (true, false) => "corrupt",
        (false, _) => "cut",
    };
    SeatReport {
        host,
        outcome: outcome.to_owned(),
        verified: Some(outcome == "complete"),
        seconds: took.filter(|_| is_done).map(|took| took.as_secs_f64()),
        seconds_verified: None,
        bytes: about.map(|about| about.len()),
        bytes_from_server: None,
        bytes_from_peers: None,
    }
}

fn file_name<'a>(job: &RunSpec<'a>) -> Result<&'a str> {
    let name = job.file.file_name().and_then(|name| name.to_str());
    let plain = |name: &&str| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    name.filter(plain).ok_or_else(|| {
        let why = "nginx is measured with files of plain names only";
        Error::refused(job.file.display(), why)
    })
}

fn configuration(job: &RunSpec<'_>) -> Result<String> {
    file_name(job)?;
    let (folder, address) = (job.folder.display(), job.server.address);
    let root = job.file.parent().unwrap_or(job.folder).display();
    Ok(format!(
        "daemon off;\nuser root;\nworker_processes 2;\npid {folder}/nginx.pid;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n access_log off;\n sendfile on;\n tcp_nopush on;\n\
         client_body_temp_path {folder}/t1;\n proxy_temp_path {folder}/t2;\n\
         fastcgi_temp_path {folder}/t3;\n uwsgi_temp_path {folder}/t4;\n\
         scgi_temp_path {folder}/t5;\n\
         server {{ listen {address}:{PORT}; root \"{root}\"; }}\n}}\n"
    ))
}
