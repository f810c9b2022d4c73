//! Whether two nodes may exchange at all.
//!
//! Both sides check the other's hello alike, so both know the reason when they may not.

use crate::model::{Heads, Hlc, Origin};

use super::{Hello, PROTOCOL_VERSION, Standing, admission_in};

/// Why two nodes must not exchange. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// They speak different protocols.
    #[error(
        "protocol version {theirs} there, {ours} here: run the same release of lastword on both"
    )]
    Protocol {
        /// This node's.
        ours: u32,
        /// The peer's.
        theirs: u32,
    },
    /// They belong to different clusters.
    #[error(
        "cluster {theirs:?} there, {ours:?} here: set the same cluster name, or take the peer \
         out of the settings"
    )]
    Cluster {
        /// This node's.
        ours: String,
        /// The peer's.
        theirs: String,
    },
    /// The peer is this very process.
    #[error("the peer's address leads back to this node: take it out of the settings")]
    Itself,
    /// Two running nodes have one origin.
    #[error(
        "the peer runs a copy of this node's store (origin {origin}): stop one of the two and run \
         `lastword rejoin --data DIR` there"
    )]
    Clone {
        /// The origin that both have.
        origin: Origin,
    },
    /// The peer knows this store as one whose removal is complete.
    #[error(
        "this node's store was removed from the cluster: stop the node, run `lastword rejoin \
         --data DIR`, and start it again; what it had not spread is written anew"
    )]
    Removed,
    /// The peer knows of writes of this store that this store does not have.
    #[error(
        "the peer has writes of this store up to {theirs}, this store only up to {ours}: it was \
         set back to an older state; stop the node, run `lastword rejoin --data DIR`, and start it again: it \
         becomes a new member, and gets back what it had spread"
    )]
    SetBack {
        /// This store's own head.
        ours: Hlc,
        /// What the peer claims of it.
        theirs: Hlc,
    },
    /// Both sites have one name.
    #[error("both sites are named {0:?}: give each site a name of its own")]
    SiteName(String),
    /// Both would make the same sequence ids.
    #[error(
        "both sites have sequence offset {0}: give each site an offset of its own, 1 to the \
         increment"
    )]
    SequenceOffset(u64),
    /// Their sequence ids would meet.
    #[error("sequence increment {theirs} there, {ours} here: set the same increment at all sites")]
    SequenceIncrement {
        /// This node's.
        ours: u64,
        /// The peer's.
        theirs: u64,
    },
}

/// Checks a peer's hello against our own, whose `heads` and `membership` must be as of now rather than
/// as it was sent: the peer may have learnt of newer writes of ours by another way meanwhile. How the peer stands
/// to the cluster here says whether what it claims counts; whether the two may meet is for the store to say.
///
/// # Errors
///
/// [`Refusal`]: the link must end, and both sides say why.
pub fn check_hello(ours: &Hello, theirs: &Hello, peer: Standing) -> Result<(), Refusal> {
    if theirs.protocol_version != PROTOCOL_VERSION {
        return Err(Refusal::Protocol { ours: PROTOCOL_VERSION, theirs: theirs.protocol_version });
    }
    if ours.cluster != theirs.cluster {
        return Err(Refusal::Cluster {
            ours: ours.cluster.clone(),
            theirs: theirs.cluster.clone(),
        });
    }
    if ours.origin == theirs.origin {
        return Err(if ours.nonce == theirs.nonce {
            Refusal::Itself
        } else {
            Refusal::Clone { origin: ours.origin }
        });
    }
    if ours.site == theirs.site {
        return Err(Refusal::SiteName(ours.site.clone()));
    }
    // Who is admitted counts from there on, and we may not have heard of it yet.
    let knows_us_admitted = theirs.membership.members.contains(&(ours.origin, true));
    let was_admitted = ours.membership.rows.iter().any(|row| admission_in(row).is_some());
    let is_joining = ours.membership.joining.is_some();
    // Who was removed may have admitted us without anybody's hearing of it, above all that we have stamped since.
    let is_removed = matches!(peer, Standing::Removed | Standing::Closed);
    if !is_joining && !is_removed && (was_admitted || !knows_us_admitted) {
        check_own_claim(ours.origin, ours.heads.get(ours.origin), &theirs.heads)?;
    }
    if let (Some(ours), Some(theirs)) = (ours.sequence, theirs.sequence) {
        if ours.increment != theirs.increment {
            return Err(Refusal::SequenceIncrement {
                ours: ours.increment,
                theirs: theirs.increment,
            });
        }
        if ours.offset == theirs.offset {
            return Err(Refusal::SequenceOffset(ours.offset));
        }
    }
    Ok(())
}

/// Refuses a peer that claims more of `origin`, this store, than this store has issued.
///
/// # Errors
///
/// [`Refusal::SetBack`].
pub(super) fn check_own_claim(origin: Origin, ours: Hlc, theirs: &Heads) -> Result<(), Refusal> {
    let claimed = theirs.get(origin);
    if claimed.is_closed() {
        return Err(Refusal::Removed);
    }
    if claimed > ours {
        return Err(Refusal::SetBack { ours, theirs: claimed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Capabilities, HelloMembership, SequenceIds};

    fn check(ours: &Hello, theirs: &Hello) -> Result<(), Refusal> {
        check_hello(ours, theirs, Standing::Unknown)
    }

    fn hello(byte: u8) -> Hello {
        Hello {
            protocol_version: PROTOCOL_VERSION,
            cluster: "shop".into(),
            site: format!("site{byte}"),
            origin: Origin::from_bytes([byte; 16]),
            boot: 1,
            nonce: byte.into(),
            heads: Heads::new(),
            sequence: None,
            wall_ms: 0,
            capabilities: Capabilities::default(),
            membership: HelloMembership::default(),
        }
    }

    #[test]
    fn peers_of_one_cluster_exchange() {
        assert_eq!(check(&hello(1), &hello(2)), Ok(()));
        let with_ids = |byte: u8, offset| Hello {
            sequence: Some(SequenceIds { offset, increment: 2 }),
            ..hello(byte)
        };
        assert_eq!(check(&with_ids(1, 1), &with_ids(2, 2)), Ok(()));
        assert_eq!(check(&with_ids(1, 1), &hello(2)), Ok(()));
    }

    #[test]
    fn others_are_refused_with_the_reason() {
        let ours = hello(1);
        let refused = |theirs: Hello| check(&ours, &theirs).unwrap_err();
        let newer = Hello { protocol_version: 2, ..hello(2) };
        assert_eq!(refused(newer), Refusal::Protocol { ours: 1, theirs: 2 });
        let other = Hello { cluster: "blog".into(), ..hello(2) };
        assert!(matches!(refused(other), Refusal::Cluster { .. }));
        assert_eq!(refused(hello(1)), Refusal::Itself);
        let copy = Hello { nonce: 99, ..hello(1) };
        assert!(matches!(refused(copy), Refusal::Clone { .. }));
        let namesake = Hello { site: "site1".into(), ..hello(2) };
        assert!(matches!(refused(namesake), Refusal::SiteName(_)));
        let mut knows_more = hello(2);
        knows_more.heads.raise(ours.origin, Hlc::from_bits(1));
        assert!(matches!(refused(knows_more.clone()), Refusal::SetBack { .. }));
        for (standing, is_refused) in
            [(Standing::Member, true), (Standing::Removed, false), (Standing::Closed, false)]
        {
            assert_eq!(check_hello(&ours, &knows_more, standing).is_err(), is_refused);
        }
    }

    #[test]
    fn sequence_ids_that_would_meet_are_refused() {
        let with_ids = |byte: u8, offset, increment| Hello {
            sequence: Some(SequenceIds { offset, increment }),
            ..hello(byte)
        };
        assert_eq!(check(&with_ids(1, 1, 2), &with_ids(2, 1, 2)), Err(Refusal::SequenceOffset(1)));
        assert_eq!(
            check(&with_ids(1, 1, 2), &with_ids(2, 2, 3)),
            Err(Refusal::SequenceIncrement { ours: 2, theirs: 3 })
        );
    }
}
