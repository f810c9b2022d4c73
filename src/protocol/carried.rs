//! Deltas that are carried by hand: whether the rows of a file may be merged here.
//!
//! A file is one delta of its sender, from heads of the importer's on. What it may claim is judged by
//! [`Receiver`](super::Receiver), as on a link.

use super::{Membership, Standing};
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
    /// The sender takes in nobody it does not know.
    pub sealed: bool,
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
    /// The sender was removed.
    #[error(
        "file: the store of site {site} that wrote it was removed from the cluster: nothing more of it is \
         taken; what it had not spread comes back with it, after lastword rejoin there"
    )]
    Removed {
        /// The sender's site.
        site: String,
    },
    /// This store was removed.
    #[error(
        "file: this node's store was removed from the cluster: stop the node, run `lastword rejoin --data \
         DIR`, and start it again"
    )]
    OwnRemoved,
    /// The sender and this store do not know each other, and one of them takes in nobody unknown.
    #[error(
        "file: the cluster is sealed, and {} is unknown in it: a newcomer is admitted over a link alone: \
         connect the two (--peer) once", stranger(.ours, .site)
    )]
    Stranger {
        /// The sender's site.
        site: String,
        /// Whether it is this node that is unknown there.
        ours: bool,
    },
}

fn stranger(ours: &bool, site: &str) -> String {
    if *ours { "this node".to_owned() } else { format!("site {site}, which wrote it,") }
}

/// Whether the store `origin` of `cluster`, which has incorporated `heads` and knows these `members`, may
/// merge the file.
///
/// # Errors
///
/// [`CarriedRefusal`].
pub fn check_carried(
    cluster: &str,
    origin: Origin,
    heads: &Heads,
    members: &Membership,
    header: &CarriedHeader,
) -> Result<(), CarriedRefusal> {
    if header.cluster != cluster {
        let (ours, theirs) = (cluster.to_owned(), header.cluster.clone());
        return Err(CarriedRefusal::Cluster { ours, theirs });
    }
    if header.origin == origin {
        return Err(CarriedRefusal::OwnFile);
    }
    let is_gone = |standing| matches!(standing, Standing::Removed | Standing::Closed);
    if is_gone(members.standing(origin, heads)) {
        return Err(CarriedRefusal::OwnRemoved);
    }
    let site = || header.site.clone();
    let standing = members.standing(header.origin, heads);
    if is_gone(standing) {
        return Err(CarriedRefusal::Removed { site: site() });
    }
    let we_sealed = members.has_acknowledged(origin);
    if standing == Standing::Unknown && (we_sealed || header.sealed) {
        return Err(CarriedRefusal::Stranger { site: site(), ours: !we_sealed });
    }
    if !heads.covers(&header.since) {
        return Err(CarriedRefusal::Gap { site: site(), from: heads.to_text() });
    }
    if !heads.covers(&header.floor) {
        return Err(CarriedRefusal::Purged { site: site() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Body, BodyParts, Context, Hlc, Role, Row, Version},
        protocol::{SystemRow, admission_row, member_row, removal_row, seal_row},
    };

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
        check_among(&[], ours, header)
    }

    /// As a store of a cluster with these rows of membership.
    fn check_among(
        rows: &[SystemRow],
        ours: &[(u8, u64)],
        header: &CarriedHeader,
    ) -> Result<(), CarriedRefusal> {
        let mut members = Membership::default();
        for SystemRow { table, key, value } in rows.iter().cloned() {
            let version = Version { hlc: Hlc::from_bits(1), origin: Origin::from_bytes([1; 16]) };
            let body = Body::new(&BodyParts {
                version,
                seen: Hlc::ZERO,
                context: &Context::new(),
                expires_at_ms: None,
                value: Some(&value),
            });
            assert!(members.learn(&Row { table, key, body }));
        }
        check_carried("shop", Origin::from_bytes([1; 16]), &heads(ours), &members, header)
    }

    #[test]
    fn of_whom_a_link_would_be_refused_a_file_is_refused() {
        let [own, sender] = [1, 2].map(|byte| Origin::from_bytes([byte; 16]));
        let site = |origin, name| member_row(origin, name, Role::Site);
        let both = vec![site(own, "fra"), site(sender, "nyc")];
        let with = |rows: &[SystemRow], row| [rows, &[row]].concat();
        let here = [(1, 5)];
        assert_eq!(check_among(&both, &here, &header()), Ok(()));
        let removed = with(&both, removal_row(sender, "fra"));
        let gone = Err(CarriedRefusal::Removed { site: "nyc".into() });
        assert_eq!(check_among(&removed, &here, &header()), gone);
        assert_eq!(check_among(&removed, &[(1, 5), (2, u64::MAX)], &header()), gone);
        let own_removed = with(&both, removal_row(own, "nyc"));
        assert_eq!(check_among(&own_removed, &here, &header()), Err(CarriedRefusal::OwnRemoved));

        let alone = with(&both[..1], seal_row());
        assert_eq!(check_among(&alone, &here, &header()), Ok(()), "the seal is not acknowledged");
        let sealed = with(&alone, admission_row(own, sender));
        let stranger = check_among(&sealed, &here, &header()).unwrap_err();
        assert!(
            stranger.to_string().contains("site nyc, which wrote it, is unknown"),
            "{stranger}"
        );
        let known = with(&sealed, both[1].clone());
        assert_eq!(check_among(&known, &here, &header()), Ok(()));
        // The other way round: here nobody has heard of the seal, but there.
        let of_sealed = CarriedHeader { sealed: true, ..header() };
        let stranger = check_among(&both[..1], &here, &of_sealed).unwrap_err();
        assert!(stranger.to_string().contains("this node is unknown"), "{stranger}");
        assert_eq!(check_among(&both, &here, &of_sealed), Ok(()), "a founder that will hear of it");
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
