//! Parts of deltas on their way into commits, in order: the next are read while one is written.

use std::collections::VecDeque;

use super::exchange::LinkError;
use crate::{node::Merging, store::MeetError};

/// How many parts of one link may be on their way at once.
const PARTS_MAX: usize = 64;
/// No further part is read while more bytes than these are on their way.
const BYTES_MAX: usize = 4 << 20;

/// The parts of one link.
#[derive(Debug, Default)]
pub(super) struct Merges {
    parts: VecDeque<(Merging, usize, bool)>,
    bytes: usize,
}

impl Merges {
    /// Adds a part; `ack_due`: the peer is to know when it is merged.
    pub(super) fn push(&mut self, merging: Merging, bytes: usize, ack_due: bool) {
        self.bytes += bytes;
        self.parts.push_back((merging, bytes, ack_due));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.parts.len() < PARTS_MAX && self.bytes < BYTES_MAX
    }

    /// Waits for the first part's commit, for ever where there is none; tells whether the peer is to
    /// know. May be given up and called again.
    pub(super) async fn first_merged(&mut self) -> Result<bool, LinkError> {
        let Some((merging, bytes, ack_due)) = self.parts.front_mut() else {
            return std::future::pending().await;
        };
        if merging.merged().await?.refused {
            return Err(MeetError::Removed.into());
        }
        let ack_due = *ack_due;
        self.bytes -= *bytes;
        self.parts.pop_front();
        Ok(ack_due)
    }
}
