//! One stream between two sites: the state of both ends, and the frames under way.

use std::{collections::VecDeque, vec};

use lastword::{
    model::{Heads, Origin, Row},
    protocol::{Frame, Hello, Receiver, Sender},
    store::{Reconciliation, Snapshot},
};

pub(super) struct Link {
    /// Unlike its place in the list, it stays.
    pub(super) id: u64,
    pub(super) ends: [End; 2],
    /// Under way to end 0 and to end 1.
    pub(super) wires: [VecDeque<Frame>; 2],
}

pub(super) struct End {
    pub(super) site: usize,
    /// As it was sent.
    pub(super) hello: Hello,
    pub(super) greeting: Greeting,
    /// Once both are known to each other.
    pub(super) talk: Option<Talk>,
}

pub(super) struct Talk {
    pub(super) peer: Origin,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    /// The newest commit passed on; `None`: read the change index.
    pub(super) followed: Option<u64>,
    pub(super) delta: Option<Outgoing>,
    /// Rows are held back: no use asking again before.
    pub(super) ask_at_ms: Option<u64>,
    /// The Want that was answered with "below floor".
    pub(super) refused: Option<u64>,
    /// The floor when the newest Want came.
    pub(super) floor_when_asked: Heads,
    /// The snapshot that the peer reconciles with; no delta goes out before its next Want.
    pub(super) reconciled_with: Option<Snapshot>,
    /// The peer's next delta is the first half of a reconciliation.
    pub(super) reconcile_asked: bool,
    /// This end stands below the peer's floor.
    pub(super) needs_turn: bool,
    /// The second half of our reconciliation.
    pub(super) comparing: Option<Reconciliation>,
}

/// Between the hello and the first Want.
pub(super) enum Greeting {
    /// The hello has not come.
    Hello,
    /// We asked the peer to take us in.
    Welcome(Hello),
    /// The peer will ask to be taken in.
    Join(Hello),
}

/// A delta on its way out.
pub(super) struct Outgoing {
    pub(super) heads: Heads,
    pub(super) sequence: u64,
    pub(super) rows: vec::IntoIter<Row>,
    /// Of the first half of a reconciliation.
    pub(super) floor: Option<Heads>,
    pub(super) begun: bool,
    /// How far the parts came: what a delta that is left off allows to skip.
    pub(super) passed: Heads,
    pub(super) last: Option<Row>,
}

impl Outgoing {
    pub(super) fn new(heads: Heads, sequence: u64, rows: Vec<Row>) -> Outgoing {
        let rows = rows.into_iter();
        Outgoing {
            heads,
            sequence,
            rows,
            floor: None,
            begun: false,
            passed: Heads::new(),
            last: None,
        }
    }

    pub(super) fn note_passed(&mut self, rows: &[Row]) {
        for row in rows {
            let version = row.body.version();
            if let Some(before) = self.last.replace(row.clone()) {
                let before = before.body.version().origin;
                if before != version.origin {
                    self.passed.raise(before, self.heads.get(before));
                }
            }
            self.passed.raise(version.origin, version.hlc.min(self.heads.get(version.origin)));
        }
    }
}

impl Link {
    pub(super) fn joins(&self, a: usize, b: usize) -> bool {
        let sites = [self.ends[0].site, self.ends[1].site];
        sites == [a, b] || sites == [b, a]
    }

    /// Whether an end is in the middle of a delta.
    pub(super) fn sends(&self, end: usize) -> bool {
        self.ends[end].talk.as_ref().is_some_and(|talk| talk.delta.is_some())
    }

    /// Whether an end waits to ask again for what was held back.
    pub(super) fn asks(&self, end: usize) -> bool {
        self.ends[end].talk.as_ref().is_some_and(|talk| talk.ask_at_ms.is_some())
    }

    pub(super) fn touches(&self, site: usize) -> bool {
        self.ends.iter().any(|end| end.site == site)
    }
}
