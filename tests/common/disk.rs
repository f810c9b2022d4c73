//! A disk in memory whose power can be cut.
//!
//! What was synced survives. Of what was written since, any part may: in pieces of a sector or a
//! page, in no order, the length of the file likewise. A disk that was cut fails every operation;
//! what survived is a new disk.
//!
//! ```text
//! write, write --> unsynced --sync--> durable
//! cut(): durable + some pieces of what was unsynced --> a new disk
//! ```

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
};

use redb::StorageBackend;

use super::dice::Dice;

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>, Arc<Condvar>);

#[derive(Debug, Default)]
struct State {
    /// What a reader gets.
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// The power fails after so many writes and syncs.
    operations_left: Option<usize>,
    off: bool,
    /// Or at a sync, after so many others.
    syncs_left: Option<usize>,
    /// Syncs fail though the power is on.
    syncs_fail: bool,
    /// Syncs wait.
    syncs_held: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Change::Write { at, bytes } => {
                let end = (at + bytes.len()).min(image.len());
                if *at < end {
                    image[*at..end].copy_from_slice(&bytes[..end - at]);
                }
            }
            Change::Length(length) => image.resize(*length, 0),
        }
    }
}

impl Disk {
    /// Lets the power fail within the next operations.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn fail_after(&self, operations: usize) {
        self.0.lock().unwrap().operations_left = Some(operations);
    }

    /// Lets the power fail at a sync, after so many others.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn fail_at_sync(&self, syncs: usize) {
        self.0.lock().unwrap().syncs_left = Some(syncs);
    }

    /// Lets every sync fail from now on.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn fail_syncs(&self) {
        self.0.lock().unwrap().syncs_fail = true;
    }

    /// Lets every sync wait, or go on.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn hold_syncs(&self, hold: bool) {
        self.0.lock().unwrap().syncs_held = hold;
        self.1.notify_all();
    }

    /// Another disk with the same on it.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn copy(&self) -> Disk {
        let image = self.0.lock().unwrap().live.clone();
        let copied = State { live: image.clone(), durable: image, ..State::default() };
        Disk(Arc::new(Mutex::new(copied)), Arc::default())
    }

    /// Cuts the power, and gives the disk that is found when it is back.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn cut(&self, dice: &mut Dice) -> Disk {
        let mut state = self.0.lock().unwrap();
        state.off = true;
        let piece_bytes = dice.pick(&[512, 4096]);
        let survive_percent = dice.pick(&[0, 10, 50, 90, 100]);
        let mut image = std::mem::take(&mut state.durable);
        for change in std::mem::take(&mut state.unsynced) {
            match change {
                Change::Length(_) if !dice.chance(survive_percent) => {}
                Change::Length(_) => change.apply(&mut image),
                Change::Write { at, bytes } => {
                    // Cut at the boundaries of the disk, not of the write.
                    let mut from = 0;
                    while from < bytes.len() {
                        let boundary = (at + from) / piece_bytes * piece_bytes + piece_bytes;
                        let to = (boundary - at).min(bytes.len());
                        if dice.chance(survive_percent) {
                            let bytes = bytes[from..to].to_vec();
                            Change::Write { at: at + from, bytes }.apply(&mut image);
                        }
                        from = to;
                    }
                }
            }
        }
        let found = State { live: image.clone(), durable: image, ..State::default() };
        Disk(Arc::new(Mutex::new(found)), Arc::default())
    }
}

impl State {
    fn powered(&mut self) -> io::Result<()> {
        self.off |= is_used_up(&mut self.operations_left);
        if self.off { Err(io::Error::other("the power is cut")) } else { Ok(()) }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        self.powered()?;
        change.apply(&mut self.live);
        self.unsynced.push(change);
        Ok(())
    }
}

/// Counts down, and says when nothing was left.
fn is_used_up(left: &mut Option<usize>) -> bool {
    match left {
        None => false,
        Some(0) => true,
        Some(more) => {
            *more -= 1;
            false
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let bytes = state.live.get(from..from + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.lock().unwrap().change(Change::Length(usize::try_from(length).unwrap()))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        self.0.lock().unwrap().change(Change::Write { at, bytes: data.to_vec() })
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let mut state = self.1.wait_while(state, |state| state.syncs_held).unwrap();
        state.off |= is_used_up(&mut state.syncs_left);
        state.powered()?;
        if state.syncs_fail {
            return Err(io::Error::other("the disk does not sync"));
        }
        let unsynced = std::mem::take(&mut state.unsynced);
        for change in unsynced {
            change.apply(&mut state.durable);
        }
        Ok(())
    }
}
