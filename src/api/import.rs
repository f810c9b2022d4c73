//! A delta that was carried by hand: merged as one that comes over a link.
//!
//! ```text
//! header --> is it for this node? --> parts: Receiver --> node.submit     claimed with the last part
//! ```
//!
//! What breaks off leaves rows and no claim; the file is imported again.

use std::{collections::VecDeque, time::Duration};

use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::{
    model::Row,
    node::{Merging, Node},
    protocol::{CarriedHeader, Delta, Receiver, check_carried},
    store::{MergeReport, RemoteBatch},
    wire::{
        carried::carried_rows_in,
        error::AnswerError,
        proto::{ImportRequest, ImportResponse, import_request::Part},
    },
};

/// How long the next part may take to come.
const PART_WAIT_MAX: Duration = Duration::from_secs(60);
/// How many parts may wait for their commit.
const UNDER_WAY_MAX: usize = 64;
/// And how many bytes they may come to.
const UNDER_WAY_BYTES_MAX: usize = 4 << 20;

/// Merges a delta.
pub(super) async fn run(
    node: Node,
    mut parts: Streaming<ImportRequest>,
) -> Result<ImportResponse, Status> {
    let first = next(&mut parts).await?;
    let Some(Part::Header(header)) = first.part else {
        return Err(Status::invalid_argument("part: the first must be the header"));
    };
    let header = CarriedHeader::try_from(header).map_err(malformed)?;
    check(&node, &header)?;
    tracing::info!(site = %header.site, origin = %header.origin, "importing a delta file");

    let mut import = Import::new(node, header);
    let mut last = first.last;
    while !last {
        let part = next(&mut parts).await?;
        last = part.last;
        let rows = match part.part {
            Some(Part::Rows(rows)) => carried_rows_in(rows).map_err(malformed)?,
            None => Vec::new(),
            Some(Part::Header(_)) => {
                return Err(Status::invalid_argument("part: a second header"));
            }
        };
        import.take(rows, last).await?;
    }
    import.finish().await
}

/// Whether the file, or more of it, may be merged now.
fn check(node: &Node, header: &CarriedHeader) -> Result<(), Status> {
    let snapshot = node.snapshot();
    if snapshot.joining().is_some_and(|joining| !joining.pulled) {
        return Err(Status::failed_precondition(
            "import: this site is being admitted to the cluster and takes rows from its sponsor alone: \
             import once it takes writes, see lastword status",
        ));
    }
    let (heads, members) = (snapshot.heads(), snapshot.members());
    check_carried(node.cluster(), node.origin(), heads, members, header)
        .map_err(|refusal| Status::failed_precondition(refusal.to_string()))
}

async fn next(parts: &mut Streaming<ImportRequest>) -> Result<ImportRequest, Status> {
    match timeout(PART_WAIT_MAX, parts.message()).await {
        Ok(part) => part?.ok_or_else(|| {
            Status::aborted(
                "import: it ended before its last part: nothing was claimed; import again",
            )
        }),
        Err(_) => Err(AnswerError::ImportStalled { wait_max: PART_WAIT_MAX }.into()),
    }
}

fn malformed(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("file: {error}"))
}

/// An import under way.
struct Import {
    node: Node,
    header: CarriedHeader,
    receiver: Receiver,
    begun: bool,
    /// Parts on their way into commits, and their bytes.
    under_way: VecDeque<(Merging, usize)>,
    bytes: usize,
    answer: ImportResponse,
}

impl Import {
    fn new(node: Node, header: CarriedHeader) -> Import {
        let receiver = Receiver::new(node.origin(), (*node.heads()).clone(), node.drift_bound_ms());
        Import {
            node,
            header,
            receiver,
            begun: false,
            under_way: VecDeque::new(),
            bytes: 0,
            answer: ImportResponse::default(),
        }
    }

    async fn take(&mut self, rows: Vec<Row>, last: bool) -> Result<(), Status> {
        let bytes: usize = rows.iter().map(Row::size_bytes).sum();
        self.answer.rows_received += rows.len() as u64;
        let first = !std::mem::replace(&mut self.begun, true);
        let snapshot_heads = first.then(|| self.header.heads.clone());
        let delta = Delta { snapshot_heads, rows, last, ..Delta::default() };
        // Nobody reconciles meanwhile; and the sender may have been removed since the part before.
        let _turn = self.node.merge_turn().await;
        check(&self.node, &self.header)?;
        let own_head = self.node.snapshot().own_head(self.node.origin(), self.header.origin);
        let received = self
            .receiver
            .on_delta(delta, own_head, self.node.now_ms())
            .map_err(|violation| Status::failed_precondition(format!("file: {violation}")))?;
        self.answer.rows_held_back += received.held_rows;
        self.answer.held_back_ms = self.answer.held_back_ms.max(received.held_ahead_ms);
        self.answer.claimed |= received.claim.is_some();
        // No tentative vector: who imports a file again has all of it at hand.
        let batch = RemoteBatch {
            sender: self.header.origin,
            rows: received.rows,
            claim: received.claim,
            tentative: None,
        };
        self.under_way.push_back((self.node.submit(batch).await?, bytes));
        self.bytes += bytes;
        while self.under_way.len() > UNDER_WAY_MAX || self.bytes > UNDER_WAY_BYTES_MAX {
            self.await_oldest().await?;
        }
        Ok(())
    }

    async fn await_oldest(&mut self) -> Result<(), Status> {
        let Some((mut merging, bytes)) = self.under_way.pop_front() else { return Ok(()) };
        self.bytes -= bytes;
        let MergeReport { stored, conflicts, .. } = merging.merged().await?;
        self.answer.rows_stored += stored;
        self.answer.conflicts += conflicts;
        Ok(())
    }

    async fn finish(mut self) -> Result<ImportResponse, Status> {
        while !self.under_way.is_empty() {
            self.await_oldest().await?;
        }
        if self.answer.claimed {
            // So that a file for its sender can begin there.
            self.node.note_carried(self.header.origin, self.header.heads).await?;
        }
        let ImportResponse { rows_received, rows_stored, claimed, .. } = self.answer;
        tracing::info!(rows_received, rows_stored, claimed, "imported a delta file");
        self.answer.heads = self.node.heads().to_text();
        Ok(self.answer)
    }
}
