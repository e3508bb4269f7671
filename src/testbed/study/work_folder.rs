//! The folder in which a study's files and copies are for a while: in memory where there is room,
//! so that no disk is measured.
//!
//! Its name has the process that made it, as a star's has, so that what a killed study left is
//! found.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    net::files::free_space,
    testbed::star::star_id::StarId,
};

/// The folder; dropping it removes it.
#[derive(Debug)]
pub struct WorkFolder {
    /// Where it is.
    pub path: PathBuf,
    /// What it is on, for the environment's stamp.
    pub kind: &'static str,
}

/// The file system in memory that every Linux has.
const MEMORY: &str = "/dev/shm";

/// Room that is left free, bytes.
const SPARE: u64 = 256 << 20;

impl WorkFolder {
    /// Makes a folder with room for `bytes`.
    ///
    /// # Errors
    /// There is no such room.
    pub fn new(bytes: u64) -> Result<Self> {
        let wanted = bytes.saturating_add(SPARE);
        let roots = [PathBuf::from(MEMORY), std::env::temp_dir()];
        let Some(root) = roots.iter().find(|root| free_space(root) >= Some(wanted)) else {
            let (gb, shown) = (wanted / 1_000_000_000 + 1, roots[1].display());
            let why = format!(
                "it takes {gb} GB for its copies, and neither {MEMORY} nor {shown} has that"
            );
            return Err(Error::refused("the study", why));
        };
        let path = root.join(StarId::next().to_string());
        fs::create_dir(&path).map_err(Error::io("make the working folder", path.display()))?;
        let kind = if root == Path::new(MEMORY) { "memory (tmpfs)" } else { "disk" };
        Ok(Self { path, kind })
    }

    /// An empty folder for one run.
    ///
    /// # Errors
    /// The system refuses.
    pub fn run_folder(&self) -> Result<PathBuf> {
        let path = self.path.join("run");
        fs::create_dir(&path).map_err(Error::io("make the folder of a run", path.display()))?;
        Ok(path)
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Removes the folders of studies of this user that are meant, and returns how many.
pub fn remove(is_meant: impl Fn(&StarId) -> bool) -> usize {
    use std::os::unix::fs::MetadataExt;
    let own = nix::unistd::Uid::effective().as_raw();
    let mut removed = 0;
    for root in [PathBuf::from(MEMORY), std::env::temp_dir()] {
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(Ok(id)) = name.to_str().map(str::parse::<StarId>) else {
                continue;
            };
            // Not a symbolic link, and not another user's folder.
            let about = fs::symlink_metadata(entry.path());
            let is_ours = about.is_ok_and(|about| about.is_dir() && about.uid() == own);
            if is_ours && is_meant(&id) && fs::remove_dir_all(entry.path()).is_ok() {
                removed += 1;
            }
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_lives_as_long_as_its_study() {
        let work = WorkFolder::new(1 << 20).expect("room");
        let path = work.path.clone();
        fs::write(work.run_folder().expect("a folder").join("copy"), "x").expect("written");
        remove(|id| !id.owner_lives());
        assert!(path.is_dir(), "its owner lives");
        drop(work);
        assert!(!path.exists());
        let error = WorkFolder::new(u64::MAX).expect_err("no disk is that large");
        assert!(error.to_string().contains("GB for its copies"), "{error}");
    }

    #[test]
    fn folder_of_a_dead_study_is_removed() {
        // Process 1 started before any other, so this owner is dead; its number is our own, so
        // that tests that run at once do not take each other's.
        let dead = StarId { process: std::process::id(), start: 1, number: 7_000_000 };
        let path = std::env::temp_dir().join(dead.to_string());
        let foreign = std::env::temp_dir().join(format!("{dead}-theirs"));
        fs::create_dir_all(path.join("run")).expect("made");
        fs::create_dir_all(&foreign).expect("made");
        remove(|id| !id.owner_lives());
        assert!(!path.exists());
        assert!(foreign.is_dir());
        fs::remove_dir(foreign).expect("there");
    }
}
