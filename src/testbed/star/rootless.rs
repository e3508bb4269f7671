//! A star without root: the same program again, inside a user namespace in which it is root.
//!
//! There it has network namespaces and a `/run` of its own, and all of it ends with it. Where the
//! kernel forbids user namespaces the program says what is missing.

use std::{
    convert::Infallible, ffi::OsString, os::unix::process::CommandExt, path::Path, process::Command,
};

use crate::{
    error::{Error, Result},
    testbed::star::{refused, tool, tool::Tool},
};

/// Tells the program that it is inside already, so that it never enters twice.
const MARK: &str = "GATECAST_INSIDE";

/// In the new namespaces: names of network namespaces go to a `/run` that only we see.
const ENTER: &str = "mount -t tmpfs gatecast /run && mkdir -p /run/netns && \
                     { [ -e /var/run/netns ] || mount -t tmpfs gatecast /var/run; } && exec \"$0\" \"$@\"";

/// True when we may make network namespaces as we are.
pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// True inside the user namespace that [`enter`] makes.
pub fn is_inside() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Becomes this program, with the arguments that it has, in a user namespace. Returns only when
/// that cannot be.
///
/// # Errors
/// Why that cannot be.
pub fn enter() -> Result<Infallible> {
    if let Some(why) = forbidden() {
        return Err(refused(why));
    }
    let unshare = tool::require("the star without root", "unshare", "util-linux")?;
    let program = std::env::current_exe().map_err(Error::io("find this program", "itself"))?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let failed = Command::new(&unshare)
        .args(["--user", "--map-root-user", "--net", "--mount", "--"])
        .args(["sh", "-c", ENTER])
        .arg(program)
        .args(arguments)
        .env(MARK, "1")
        .exec();
    Err(Error::io("enter a user namespace", unshare.display())(failed))
}

/// Why no star can be built here, as far as can be known before trying; after a semicolon what mends
/// it.
pub fn obstacle() -> Option<String> {
    let mut tools = Tool::ALL.map(Tool::name_and_package).into_iter();
    if let Some((name, package)) = tools.find(|(name, _)| tool::find(name).is_none()) {
        return Some(format!("the program `{name}` is missing; apt install {package}"));
    }
    if !is_root() {
        return forbidden().map(|why| format!("{why}; run it as root"));
    }
    let why = "root may not make network namespaces here; give this container CAP_SYS_ADMIN";
    (!may_administer()).then(|| why.to_owned())
}

/// Whether this process has CAP_SYS_ADMIN, which is capability 21; true where it is not told.
fn may_administer() -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let mut lines = status.lines();
    let capabilities = lines.find_map(|line| line.strip_prefix("CapEff:"));
    let bits = capabilities.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_none_or(|bits| bits >> 21 & 1 == 1)
}

/// Why the kernel does not let us, as far as can be known before trying.
fn forbidden() -> Option<String> {
    let is_set = |(name, value): &(&str, &str)| {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == *value)
    };
    let forbidding = [
        ("user.max_user_namespaces", "0"),
        ("kernel.unprivileged_userns_clone", "0"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1"),
    ];
    let (name, value) = forbidding.into_iter().find(is_set)?;
    Some(format!(
        "it takes root, or user namespaces, which this system forbids (sysctl {name} is {value})"
    ))
}
