//! A new site is ready once it has what a peer had: one delta, whole and claimed.
//!
//! Before that it serves whoever asks, but reads would find next to nothing: who balances load, or
//! rolls out site after site, is told to wait. What was claimed once is durable; who was ready is ready again
//! after any restart, however far behind.

use std::fmt;

use super::{Node, PeerReport};

/// How far a new site is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatchingUp {
    /// The site whose delta comes in, or its address; `None`: no peer was reached yet.
    pub from: Option<String>,
    /// Rows that it still has to send; `None`: it has not said so yet.
    pub remaining_rows: Option<u64>,
    /// An estimate of their bytes.
    pub remaining_bytes: u64,
    /// Rows held back for their stamps: until they are let in, nothing is claimed.
    pub held_rows: u64,
}

impl fmt::Display for CatchingUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("catching up: this new store has not had all rows of a peer yet: ")?;
        match (&self.from, self.remaining_rows) {
            (None, _) => f.write_str("no peer is connected"),
            (Some(from), None) => write!(f, "{from} is connected and has sent nothing yet"),
            (Some(from), Some(rows)) => {
                write!(f, "{rows} rows ({} bytes) to come from {from}", self.remaining_bytes)
            }
        }?;
        if self.held_rows > 0 {
            let held = self.held_rows;
            write!(f, "; {held} held back, stamped too far ahead of this clock: check the clocks")?;
        }
        Ok(())
    }
}

impl Node {
    /// Why this node is not ready yet, where it is new; `None`: it has caught up once, or has no
    /// peers. Takes no time.
    #[must_use]
    pub fn catching_up(&self) -> Option<CatchingUp> {
        if !self.shared.expects_peers || !self.shared.store.awaits_first_delta() {
            return None;
        }
        let peers = self.reports().peers();
        let connected = peers.iter().filter(|peer| peer.direction.is_some());
        // The first delta to end counts.
        let nearest = connected.min_by_key(|peer| match peer.rows_received {
            0 => u64::MAX,
            _ => peer.remaining_rows,
        });
        Some(match nearest {
            None => {
                CatchingUp { from: None, remaining_rows: None, remaining_bytes: 0, held_rows: 0 }
            }
            Some(peer) => CatchingUp {
                from: Some(name_of(peer)),
                remaining_rows: (peer.rows_received > 0).then_some(peer.remaining_rows),
                remaining_bytes: peer.remaining_bytes,
                held_rows: peer.held_rows,
            },
        })
    }

    /// Waits until this node has caught up once; at once where it has.
    pub async fn caught_up(&self) {
        let mut bell = self.bell();
        // It rings after the commit of each claim; the sender lives as long as the node.
        while self.catching_up().is_some() && bell.changed().await.is_ok() {}
    }
}

fn name_of(peer: &PeerReport) -> String {
    let name = if peer.site.is_empty() { &peer.address } else { &peer.site };
    name.clone()
}
