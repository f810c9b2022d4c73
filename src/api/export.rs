//! A delta that is to be carried by hand: one durable moment, as on a link.

use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::paged::{self, PAGE_BYTES, Page, PageStream};
use crate::{
    node::{FollowDelta, Node},
    protocol::CarriedHeader,
    store::StoreError,
    wire::{
        carried::{Since, carried_rows_out},
        error::AnswerError,
        proto::{ExportResponse, export_response::Part},
    },
};

/// The most rows of a part.
const PART_ROWS_MAX: usize = 4_096;

/// The delta, part by part.
pub(super) type ExportStream = PageStream<ExportResponse>;

/// Begins a delta; `place` is given back when it ends.
pub(super) async fn start(
    node: Node,
    since: Since,
    place: OwnedSemaphorePermit,
) -> Result<ExportStream, Status> {
    let pages = tokio::task::spawn_blocking(move || -> Result<Pages, Status> {
        let since = match since {
            Since::Site(site) => node.heads_of_site(&site)?,
            Since::Heads(heads) => heads,
        };
        let (header, delta) = node.carry(since)?;
        Ok(Pages { header: Some(header), delta })
    });
    let pages = pages.await.map_err(|_| AnswerError::Fault)??;
    Ok(paged::start(pages, paged::of_operators("export"), place))
}

/// What is left of a delta.
struct Pages {
    /// Until it is sent.
    header: Option<CarriedHeader>,
    delta: FollowDelta,
}

impl paged::Pages for Pages {
    type Message = ExportResponse;

    fn next(&mut self) -> Result<Page<ExportResponse>, StoreError> {
        if let Some(header) = self.header.take() {
            let part = Some(Part::Header(header.into()));
            let message = Some(ExportResponse { part, ..ExportResponse::default() });
            return Ok(Page { message, last: false });
        }
        let page = self.delta.page(PART_ROWS_MAX, PAGE_BYTES)?;
        let message = ExportResponse {
            part: Some(Part::Rows(carried_rows_out(&page.rows))),
            last: page.last,
            remaining_rows: page.remaining_rows,
            remaining_bytes: page.remaining_bytes,
        };
        Ok(Page { message: Some(message), last: page.last })
    }
}
