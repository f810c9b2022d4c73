//! The baseline: a file that is committed, so that a review sees what a change costs.

use std::{collections::BTreeMap, fmt::Write, fs, io, path::Path};

use anyhow::Context;
use serde::Deserialize;

/// What the counts depend on besides the code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Toolchain {
    /// The compiler and its version.
    pub(crate) compiler: String,
    /// The target, and which variants of memory copies and checksums run there.
    pub(crate) machine: String,
}

/// Counts and what they were counted with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Baseline {
    /// What they were counted with.
    pub(crate) toolchain: Toolchain,
    /// The instructions of one operation of each case.
    pub(crate) instructions: BTreeMap<String, u64>,
}

impl Baseline {
    /// Reads the file; where there is none, an empty baseline.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Baseline> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        Baseline::from_text(&text).with_context(|| path.display().to_string())
    }

    /// Replaces the file.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        fs::write(path, self.to_text()).with_context(|| path.display().to_string())
    }

    fn from_text(text: &str) -> anyhow::Result<Baseline> {
        if text.trim().is_empty() {
            return Ok(Baseline::default());
        }
        Ok(toml::from_str(text)?)
    }

    fn to_text(&self) -> String {
        let Toolchain { compiler, machine } = &self.toolchain;
        let mut text = format!(
            "# The instructions of one operation of each hot path. `make bench-check` compares with\n\
             # them, `make bench-check UPDATE=1` writes them: commit the change with its reason.\n\
             \n\
             [toolchain]\n\
             compiler = {compiler:?}\n\
             machine = {machine:?}\n\
             \n\
             [instructions]\n"
        );
        for (case, instructions) in &self.instructions {
            let _ = writeln!(text, "{case} = {instructions}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let baseline = Baseline {
            toolchain: Toolchain { compiler: "rustc 1.95.0 (5980)".into(), machine: "x86".into() },
            instructions: [("get".to_owned(), 12), ("put".to_owned(), 1_200_000)].into(),
        };
        assert_eq!(Baseline::from_text(&baseline.to_text()).unwrap(), baseline);
    }

    #[test]
    fn a_missing_file_is_an_empty_baseline_and_a_damaged_one_an_error() {
        let missing = Baseline::read(Path::new("/nowhere/instructions.toml")).unwrap();
        assert_eq!(missing, Baseline::default());
        assert!(Baseline::from_text("[instructions]\nput = \"many\"\n").is_err());
    }

    #[test]
    fn the_committed_baseline_can_be_read() {
        let committed = Baseline::read(Path::new(crate::BASELINE_FILE)).unwrap();
        let cases: Vec<&str> = committed.instructions.keys().map(String::as_str).collect();
        let mut expected: Vec<&str> = crate::CASES.iter().map(|case| case.name).collect();
        expected.sort_unstable();
        assert_eq!(cases, expected, "run make bench-check UPDATE=1");
    }
}
