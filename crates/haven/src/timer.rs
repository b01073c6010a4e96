//! The machine's watchdog timer (`node.watchdog_device`, see the kernel's watchdog API): from its opening on it
//! resets the machine unless it is written to again and again.
//!
//! Invariant: only a clean end switches it off. Whatever else ends this process, or keeps it from writing, lets the
//! timer run out.
//!
//! It must not judge whether all is well.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use tracing::{error, info};

/// How often the timer is told; timers run out after ten seconds and more.
const EVERY: Duration = Duration::from_secs(1);
/// What says that the end is wanted.
const OFF: &[u8] = b"V";

/// The timer, running. `Timer::default()` is none.
#[derive(Debug, Default)]
pub struct Timer {
    device: Option<File>,
    told: Option<Instant>,
}

impl Timer {
    /// Opens, and so starts, the timer.
    ///
    /// # Errors
    /// What the system says, in words.
    pub fn start(device: Option<&Path>) -> Result<Self, String> {
        let Some(path) = device else {
            return Ok(Self::default());
        };
        let opened = File::options().write(true).open(path);
        let device = opened.map_err(|e| {
            format!(
                "the watchdog timer {} (node.watchdog_device): {e}; is it another program's?",
                path.display()
            )
        })?;
        info!(device = %path.display(), "the watchdog timer runs: this machine is reset when the node hangs");
        Ok(Self {
            device: Some(device),
            told: None,
        })
    }

    /// Tells the timer that all is well, if it is time.
    pub fn well(&mut self) {
        if self.told.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.told = Some(Instant::now());
        self.write(b"\0");
    }

    /// Switches it off.
    pub fn off(mut self) {
        self.write(OFF);
    }

    fn write(&mut self, what: &[u8]) {
        if let Some(device) = &mut self.device
            && let Err(why) = device.write_all(what)
        {
            error!(%why, "cannot write to the watchdog timer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_a_clean_end_switches_it_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog");
        fs::write(&path, "").unwrap();
        let mut timer = Timer::start(Some(&path)).unwrap();
        timer.well();
        timer.well();
        drop(timer);
        assert_eq!(fs::read(&path).unwrap(), b"\0", "at once, then in turns");
        let mut timer = Timer::start(Some(&path)).unwrap();
        timer.well();
        timer.off();
        assert_eq!(fs::read(&path).unwrap(), b"\0V");
    }

    #[test]
    fn without_a_device_nothing_happens_and_a_missing_one_is_told() {
        Timer::start(None).unwrap().well();
        let why = Timer::start(Some(Path::new("/nonexistent"))).unwrap_err();
        assert!(why.contains("node.watchdog_device"), "{why}");
    }
}
