//! What this machine is called.

/// The name of this machine, as its system tells it; `None` where it does not.
pub fn own() -> Option<String> {
    // Linux has it in a file, which a build without feature `sockopt` reads too.
    let file = Some("/proc/sys/kernel/hostname").filter(|_| cfg!(target_os = "linux"));
    let told = file.and_then(|file| std::fs::read_to_string(file).ok());
    told.as_deref().and_then(name_in).or_else(|| name_in(&of_system()?))
}

/// The name in what a system tells.
fn name_in(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(all(unix, feature = "sockopt"))]
fn of_system() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

/// Windows tells it in the environment.
#[cfg(not(all(unix, feature = "sockopt")))]
fn of_system() -> Option<String> {
    std::env::var("COMPUTERNAME").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_what_stands_between_blanks() {
        for (told, name) in [("node7\n", "node7"), ("Mac.local", "Mac.local"), (" a b ", "a b")] {
            assert_eq!(name_in(told).as_deref(), Some(name), "{told:?}");
        }
        for told in ["", "\n", " \t"] {
            assert_eq!(name_in(told), None, "{told:?}");
        }
    }

    #[cfg(all(target_os = "linux", feature = "sockopt"))]
    #[test]
    fn system_tells_same_name_as_its_file() {
        assert_eq!(own(), of_system());
        assert!(own().is_some());
    }
}
