//! Deltas that are carried by hand: whether the rows of a file may be merged here.
//!
//! A file is one delta of its sender, from heads of the importer's on. What it may claim is judged by
//! [`Receiver`](super::Receiver), as on a link.

use crate::model::{Heads, Origin};

/// What stands at the head of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CarriedHeader {
    /// The sender's cluster.
    pub cluster: String,
    /// The name of its site.
    pub site: String,
    /// Its store.
    pub origin: Origin,
    /// The file holds every row above these heads.
    pub since: Heads,
    /// In this durable moment of the sender: its heads, the checkpoint.
    pub heads: Heads,
    /// Up to here the sender may have purged dead rows: what lies above `since` and is not in the file may
    /// be such a row.
    pub floor: Heads,
    /// When the file was made, by the sender's wall clock, in milliseconds since the Unix epoch, UTC.
    pub created_ms: u64,
}

/// Why a file must not be merged here. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CarriedRefusal {
    /// Of another cluster.
    #[error("file: it is from cluster {theirs:?}, this node belongs to {ours:?}")]
    Cluster {
        /// This node's.
        ours: String,
        /// The file's.
        theirs: String,
    },
    /// Of this very store.
    #[error("file: this node wrote it itself: carry it to another site")]
    OwnFile,
    /// What lies below the file's first rows is not here.
    #[error(
        "file: there is a gap: it begins above what this node has: export at {site} with --since \
         {from}"
    )]
    Gap {
        /// The sender's site.
        site: String,
        /// What this node has.
        from: String,
    },
    /// Deletes that this node has not seen may be gone there.
    #[error(
        "file: site {site} has purged deleted rows that this node has not heard of, so no file of its \
         can bring this node up to date: connect the two (--peer)"
    )]
    Purged {
        /// The sender's site.
        site: String,
    },
}

/// Whether the store `origin` of `cluster`, which has incorporated `heads`, may merge the file.
///
/// # Errors
///
/// [`CarriedRefusal`].
pub fn check_carried(
    cluster: &str,
    origin: Origin,
    heads: &Heads,
    header: &CarriedHeader,
) -> Result<(), CarriedRefusal> {
    if header.cluster != cluster {
        let (ours, theirs) = (cluster.to_owned(), header.cluster.clone());
        return Err(CarriedRefusal::Cluster { ours, theirs });
    }
    if header.origin == origin {
        return Err(CarriedRefusal::OwnFile);
    }
    if !heads.covers(&header.since) {
        let (site, from) = (header.site.clone(), heads.to_text());
        return Err(CarriedRefusal::Gap { site, from });
    }
    if !heads.covers(&header.floor) {
        return Err(CarriedRefusal::Purged { site: header.site.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Hlc;

    fn heads(entries: &[(u8, u64)]) -> Heads {
        entries.iter().map(|&(o, h)| (Origin::from_bytes([o; 16]), Hlc::from_bits(h))).collect()
    }

    fn header() -> CarriedHeader {
        CarriedHeader {
            cluster: "shop".into(),
            site: "nyc".into(),
            origin: Origin::from_bytes([2; 16]),
            since: heads(&[(1, 5)]),
            heads: heads(&[(1, 7), (2, 9)]),
            ..CarriedHeader::default()
        }
    }

    fn check(ours: &[(u8, u64)], header: &CarriedHeader) -> Result<(), CarriedRefusal> {
        check_carried("shop", Origin::from_bytes([1; 16]), &heads(ours), header)
    }

    #[test]
    fn a_file_that_goes_on_where_this_store_stands_is_taken() {
        assert_eq!(check(&[(1, 5)], &header()), Ok(()));
        assert_eq!(check(&[(1, 6), (3, 1)], &header()), Ok(()));
        let purged = CarriedHeader { floor: heads(&[(1, 5)]), ..header() };
        assert_eq!(check(&[(1, 5)], &purged), Ok(()));
    }

    #[test]
    fn any_other_is_refused_with_the_way_out() {
        let gap = check(&[(1, 4)], &header()).unwrap_err();
        assert!(gap.to_string().ends_with(&heads(&[(1, 4)]).to_text()), "{gap}");
        let other = CarriedHeader { cluster: "blog".into(), ..header() };
        assert!(matches!(check(&[(1, 5)], &other), Err(CarriedRefusal::Cluster { .. })));
        let own = CarriedHeader { origin: Origin::from_bytes([1; 16]), ..header() };
        assert_eq!(check(&[(1, 5)], &own), Err(CarriedRefusal::OwnFile));
        let purged = CarriedHeader { floor: heads(&[(2, 1)]), ..header() };
        assert!(matches!(check(&[(1, 5)], &purged), Err(CarriedRefusal::Purged { .. })));
    }
}
