//! Errors -> canonical codes, in one place.
//!
//! A client may act on the code alone: `INVALID_ARGUMENT` is wrong in itself, `UNAVAILABLE` may be
//! retried elsewhere, `RESOURCE_EXHAUSTED` later or with less, `FAILED_PRECONDITION` once something
//! else has changed. The text says what to do.

use std::time::Duration;

use tonic::{Code, Status};

use super::limits::{Grouped, RequestError};
use crate::{
    node::{
        CarryError, CommandError, MemberError, MirrorOrderError, MirrorVerifyError, ReadError,
        RestoreError, VerifyError, WriteError,
    },
    store::{RefusedError, StoreError},
};

/// A sound request that could not be served to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Of a `GetMany`.
    #[error(
        "keys: the rows come to more than {} bytes, the most that an answer has: ask for fewer \
         keys at a time", Grouped(*.bytes_max)
    )]
    AnswerTooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// Of a `Scan`.
    #[error("scan: {scans_max} scans run now, as many as may: retry when one has ended")]
    TooManyScans {
        /// The bound.
        scans_max: usize,
    },
    /// The client takes no rows.
    #[error(
        "scan: no rows were taken for {} s, so its snapshot was let go: scan on with start = the \
         last key and a zero byte; in reverse, with end = the last key", .stall_max.as_secs_f64()
    )]
    ScanStalled {
        /// The bound.
        stall_max: Duration,
    },
    /// The scan takes too long.
    #[error(
        "scan: it took longer than {} s, so its snapshot was let go: scan on with start = the \
         last key and a zero byte; in reverse, with end = the last key", .age_max.as_secs_f64()
    )]
    ScanTooOld {
        /// The bound.
        age_max: Duration,
    },
    /// Another stream that an operator asked for: its client takes nothing.
    #[error(
        "{what}: nothing was taken for {} s, so it was let go: ask again, and read faster",
        .stall_max.as_secs_f64()
    )]
    StreamStalled {
        /// What was asked for.
        what: &'static str,
        /// The bound.
        stall_max: Duration,
    },
    /// And one that takes too long.
    #[error(
        "{what}: it took longer than {} s, so it was let go: ask again, for less or over a faster \
         line", .age_max.as_secs_f64()
    )]
    StreamTooOld {
        /// What was asked for.
        what: &'static str,
        /// The bound.
        age_max: Duration,
    },
    /// There are as many of them as may be.
    #[error("{what}: {streams_max} such requests run now, as many as may: retry later")]
    TooManyStreams {
        /// What was asked for.
        what: &'static str,
        /// The bound.
        streams_max: usize,
    },
    /// The next part of an import does not come.
    #[error(
        "import: no part came for {} s: nothing was claimed; import the file again",
        .wait_max.as_secs_f64()
    )]
    ImportStalled {
        /// The bound.
        wait_max: Duration,
    },
    /// Any request.
    #[error(
        "request: not answered within {} s; whether a write in it stands is not known: send it \
         faster, or retry", .time_max.as_secs_f64()
    )]
    TooSlow {
        /// The bound.
        time_max: Duration,
    },
    /// A fault of this program.
    #[error("node: a fault while it read; its log says more: retry at another node")]
    Fault,
}

impl From<AnswerError> for Status {
    fn from(error: AnswerError) -> Status {
        let code = match error {
            AnswerError::AnswerTooLarge { .. }
            | AnswerError::TooManyScans { .. }
            | AnswerError::TooManyStreams { .. } => Code::ResourceExhausted,
            AnswerError::ScanStalled { .. }
            | AnswerError::ScanTooOld { .. }
            | AnswerError::ImportStalled { .. }
            | AnswerError::StreamStalled { .. }
            | AnswerError::StreamTooOld { .. } => Code::Aborted,
            AnswerError::TooSlow { .. } => Code::DeadlineExceeded,
            AnswerError::Fault => Code::Internal,
        };
        Status::new(code, error.to_string())
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Status {
        Status::invalid_argument(error.to_string())
    }
}

impl From<RefusedError> for Status {
    fn from(error: RefusedError) -> Status {
        let code = match error {
            RefusedError::NoTable(_) => Code::NotFound,
            RefusedError::TooManyTables(_) | RefusedError::SequenceExhausted(_) => {
                Code::ResourceExhausted
            }
            RefusedError::ClockAhead { .. } | RefusedError::Joining => Code::Unavailable,
            RefusedError::NoSequence | RefusedError::Removed => Code::FailedPrecondition,
        };
        Status::new(code, error.to_string())
    }
}

impl From<MemberError> for Status {
    fn from(error: MemberError) -> Status {
        let code = match error {
            MemberError::Unknown(_) => Code::NotFound,
            MemberError::Ambiguous(_) | MemberError::Itself(_) => Code::InvalidArgument,
            MemberError::Removed(_) | MemberError::NotSealed(_) => Code::FailedPrecondition,
        };
        Status::new(code, error.to_string())
    }
}

impl From<MirrorOrderError> for Status {
    fn from(error: MirrorOrderError) -> Status {
        let code = match error {
            MirrorOrderError::NoMirror => Code::FailedPrecondition,
            MirrorOrderError::NoTable(_) => Code::NotFound,
            MirrorOrderError::File { .. } => Code::Unavailable,
        };
        Status::new(code, error.to_string())
    }
}

impl From<WriteError> for Status {
    fn from(error: WriteError) -> Status {
        match error {
            WriteError::Refused(refused) => refused.into(),
            WriteError::Replica { .. } => Status::failed_precondition(error.to_string()),
            WriteError::ShuttingDown | WriteError::StoreFailed(_) => {
                Status::unavailable(error.to_string())
            }
        }
    }
}

impl From<ReadError> for Status {
    fn from(error: ReadError) -> Status {
        match error {
            ReadError::NotThereYet { .. } => Status::failed_precondition(error.to_string()),
            ReadError::Store(error) => error.into(),
        }
    }
}

impl From<VerifyError> for Status {
    fn from(error: VerifyError) -> Status {
        let code = match error {
            VerifyError::Store(error) => return error.into(),
            VerifyError::Write(error) => return error.into(),
            VerifyError::Itself(_) => Code::InvalidArgument,
            VerifyError::UnknownPeer { .. } => Code::NotFound,
            VerifyError::NotConnected { .. } | VerifyError::CannotBegin { .. } => {
                Code::FailedPrecondition
            }
            VerifyError::Busy(_) => Code::ResourceExhausted,
            VerifyError::Silent { .. } => Code::DeadlineExceeded,
            VerifyError::LinkLost(_)
            | VerifyError::RefusedByPeer { .. }
            | VerifyError::Violation(_) => Code::Aborted,
        };
        Status::new(code, error.to_string())
    }
}

impl From<MirrorVerifyError> for Status {
    fn from(error: MirrorVerifyError) -> Status {
        let code = match error {
            MirrorVerifyError::Store(error) => return error.into(),
            MirrorVerifyError::UnknownTable(_) => Code::NotFound,
            MirrorVerifyError::Busy => Code::ResourceExhausted,
            MirrorVerifyError::Ended => Code::Aborted,
            MirrorVerifyError::NoMirror | MirrorVerifyError::Mysql(_) => Code::FailedPrecondition,
        };
        Status::new(code, error.to_string())
    }
}

impl From<CommandError> for Status {
    fn from(error: CommandError) -> Status {
        let code = match error {
            CommandError::NotRunning | CommandError::Refused(_) => Code::FailedPrecondition,
            CommandError::Interrupted => Code::Aborted,
        };
        Status::new(code, error.to_string())
    }
}

impl From<RestoreError> for Status {
    fn from(error: RestoreError) -> Status {
        match error {
            RestoreError::Unknown(_) => Status::not_found(error.to_string()),
            RestoreError::Expired { .. } => Status::failed_precondition(error.to_string()),
            RestoreError::Store(error) => error.into(),
            RestoreError::Write(error) => error.into(),
        }
    }
}

impl From<CarryError> for Status {
    fn from(error: CarryError) -> Status {
        match error {
            CarryError::Unknown { .. }
            | CarryError::Ambiguous { .. }
            | CarryError::BeingAdmitted => Status::failed_precondition(error.to_string()),
            CarryError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Status {
        tracing::error!(%error, "the store could not be read");
        Status::internal(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableName;

    #[test]
    fn each_error_has_its_code() {
        let table = || TableName::of_client("t").unwrap();
        let of = |error: RefusedError| Status::from(WriteError::Refused(error)).code();
        assert_eq!(of(RefusedError::NoTable(table())), Code::NotFound);
        assert_eq!(of(RefusedError::TooManyTables(table())), Code::ResourceExhausted);
        assert_eq!(of(RefusedError::SequenceExhausted(table())), Code::ResourceExhausted);
        assert_eq!(of(RefusedError::NoSequence), Code::FailedPrecondition);
        let ahead = RefusedError::ClockAhead { ahead_ms: 2, bound_ms: 1 };
        assert_eq!(of(ahead), Code::Unavailable);
        assert_eq!(Status::from(WriteError::ShuttingDown).code(), Code::Unavailable);
        let replica = WriteError::Replica { site: "lon".into(), write_at: "fra".into() };
        assert_eq!(Status::from(replica).code(), Code::FailedPrecondition);
        let failed = WriteError::StoreFailed("disk".into());
        assert_eq!(Status::from(failed).code(), Code::Unavailable);
        let behind = ReadError::NotThereYet { behind_ms: 7, waited_ms: 2_000 };
        assert_eq!(Status::from(behind).code(), Code::FailedPrecondition);
        assert_eq!(Status::from(StoreError::Damaged("x")).code(), Code::Internal);
    }

    #[test]
    fn messages_stay_in_one_line() {
        for error in [
            AnswerError::AnswerTooLarge { bytes_max: 1 << 20 },
            AnswerError::TooManyScans { scans_max: 64 },
            AnswerError::ScanStalled { stall_max: Duration::from_secs(60) },
            AnswerError::ScanTooOld { age_max: Duration::from_secs(60) },
            AnswerError::StreamStalled { what: "export", stall_max: Duration::from_secs(60) },
            AnswerError::StreamTooOld { what: "export", age_max: Duration::from_secs(60) },
            AnswerError::TooManyStreams { what: "export", streams_max: 4 },
            AnswerError::ImportStalled { wait_max: Duration::from_secs(60) },
            AnswerError::TooSlow { time_max: Duration::from_secs(30) },
            AnswerError::Fault,
        ] {
            let text = error.to_string();
            assert!(!text.contains('\n') && !text.contains("  "), "{text}");
        }
    }
}
