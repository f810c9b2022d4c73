//! What applications wrote in this site's database becomes this site's writes.
//!
//! Whoever captures it reads the newest receipt first, and hands over under the next number: a hand-over
//! that was asked for and abandoned may still be made, and is then found by its number.

use bytes::Bytes;

use super::{Node, WriteError};
use crate::{
    model::{Heads, Version},
    store::{
        HandOver, HandOverError, HandOverReport, HandedRow, Outcome, Receipt, Request, StoreError,
    },
};

/// Nothing was handed over, unless said otherwise.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CaptureError {
    /// Its number was not the next one: read the receipt again.
    #[error("hand-over: another one was made under the number {0}")]
    OutOfTurn(u64),
    /// As for any write.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Node {
    /// The newest hand-over from this site's database.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read.
    pub fn receipt(&self) -> Result<Receipt, StoreError> {
        self.snapshot().receipt()
    }

    /// Whether this write came from this site's database, which therefore has it, though the heads of
    /// its checkpoint may not say so yet.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read.
    pub fn is_captured(&self, version: Version) -> Result<bool, StoreError> {
        self.snapshot().is_handed_over(self.origin(), version)
    }

    /// Writes rows as applications left them in this site's database, which had `seen` of this store
    /// when they were read, and keeps `entries` as the receipt, in one durable commit. Where each row
    /// stands like that already, nothing is written and no receipt kept.
    ///
    /// # Errors
    ///
    /// [`CaptureError`].
    pub async fn hand_over(
        &self,
        number: u64,
        rows: Vec<HandedRow>,
        seen: Heads,
        entries: Bytes,
    ) -> Result<HandOverReport, CaptureError> {
        self.check_role()?;
        let drift_bound_ms = self.drift_bound_ms();
        let batch = HandOver { number, rows, seen, entries, drift_bound_ms };
        match self.request(Request::HandOver(batch)).await? {
            Outcome::HandedOver(Ok(report)) => Ok(report),
            Outcome::HandedOver(Err(HandOverError::OutOfTurn { number, .. })) => {
                Err(CaptureError::OutOfTurn(number))
            }
            Outcome::HandedOver(Err(HandOverError::Refused(refused))) => {
                Err(WriteError::from(refused).into())
            }
            _ => unreachable!("a hand-over has an outcome of its own"),
        }
    }
}
