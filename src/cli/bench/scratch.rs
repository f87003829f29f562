//! A folder for a measurement.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A folder of our own, removed at the end.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn make(parent: &Path) -> anyhow::Result<Self> {
        let dir = parent.join(format!(".vestnik-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Scratch(dir))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
