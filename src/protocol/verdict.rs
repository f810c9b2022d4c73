//! Where two stores show different rows in one place: whether that is as it should be, and which row is
//! right where it is not.
//!
//! A row that one side has and the other's heads do not include is on its way. So may be the news that a
//! row has died, where one side has nothing and may have purged what the other has not heard of: that
//! one will be reconciled. Everything else that differs should not: heads claim what is not there, or
//! the same write has other bytes.

use bytes::Bytes;

use crate::model::{Body, Heads, Version};

/// What stands in a place at one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    bytes: Bytes,
    /// `None`: damaged.
    body: Option<Body>,
}

impl Standing {
    /// From the bytes of a body, which may be damaged.
    #[must_use]
    pub fn of(bytes: Bytes) -> Standing {
        Standing { body: Body::decode(bytes.clone()).ok(), bytes }
    }

    /// The bytes as they stand there.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The row; `None`: its bytes are damaged.
    #[must_use]
    pub fn body(&self) -> Option<&Body> {
        self.body.as_ref()
    }

    /// Which write it is, as far as damaged bytes still say so.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        Body::version_in(&self.bytes)
    }

    fn is_dead(&self, now_ms: u64) -> bool {
        self.body.as_ref().is_some_and(|body| !body.is_live(now_ms))
    }
}

/// One side, in one moment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What stands there.
    pub standing: Option<&'a Standing>,
    /// What the side has incorporated.
    pub heads: &'a Heads,
    /// Up to where dead rows may be gone there.
    pub floor: &'a Heads,
}

/// What is wrong in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// Only this side has the row, though the other's heads include it.
    OnlyHere,
    /// Only the other side has the row, though this one's heads include it.
    OnlyThere,
    /// This side's version is the greater one, though the other's heads include it.
    NewerHere,
    /// The other side's version is the greater one, though this one's heads include it.
    NewerThere,
    /// One write, and two different rows.
    Unequal,
}

/// What is to be thought of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Both sides have the same, or for both there is no row.
    Equal,
    /// The greater version is still on its way.
    InFlux,
    /// They differ, and no write on its way explains it.
    Differs(Wrong),
}

/// Judges what two sides have in one place. `now_ms` decides what has expired, in milliseconds since the
/// Unix epoch, UTC.
#[must_use]
pub fn judge(here: View<'_>, there: View<'_>, now_ms: u64) -> Verdict {
    let is_dead = |view: &View<'_>| view.standing.is_none_or(|row| row.is_dead(now_ms));
    let bytes = |view: &View<'_>| view.standing.map(|row| row.bytes.clone());
    // A dead row may be purged at one side and not yet at the other.
    if bytes(&here) == bytes(&there) || (is_dead(&here) && is_dead(&there)) {
        return Verdict::Equal;
    }
    let version = |view: &View<'_>| view.standing.and_then(Standing::version);
    let differs = |wrong, greater: Option<Version>, lacks: &Heads| match greater {
        Some(version) if !lacks.includes(version) => Verdict::InFlux,
        _ => Verdict::Differs(wrong),
    };
    match (here.standing, there.standing) {
        (_, None) if !here.heads.covers(there.floor) => Verdict::InFlux,
        (None, _) if !there.heads.covers(here.floor) => Verdict::InFlux,
        (_, None) => differs(Wrong::OnlyHere, version(&here), there.heads),
        (None, _) => differs(Wrong::OnlyThere, version(&there), here.heads),
        (Some(_), Some(_)) => match version(&here).cmp(&version(&there)) {
            std::cmp::Ordering::Greater => differs(Wrong::NewerHere, version(&here), there.heads),
            std::cmp::Ordering::Less => differs(Wrong::NewerThere, version(&there), here.heads),
            std::cmp::Ordering::Equal => Verdict::Differs(Wrong::Unequal),
        },
    }
}

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This one.
    Here,
    /// The other one.
    There,
}

/// Why nobody but an operator can say which row is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// Both rows are sound.
    #[error("one write with two values: say which is right with --prefer here or --prefer there")]
    TwoValues,
    /// The row that should stand cannot be read.
    #[error("the row that should stand is damaged: write it anew, or delete it")]
    Damaged,
}

/// Which side's row is right. `prefer` decides where one write has two sound values.
///
/// # Errors
///
/// [`Undecided`]: it cannot be told.
pub fn right_side(
    wrong: Wrong,
    here: Option<&Standing>,
    there: Option<&Standing>,
    prefer: Option<Side>,
) -> Result<Side, Undecided> {
    let body = |side| match side {
        Side::Here => here.and_then(Standing::body),
        Side::There => there.and_then(Standing::body),
    };
    let side = match wrong {
        Wrong::OnlyHere | Wrong::NewerHere => Side::Here,
        Wrong::OnlyThere | Wrong::NewerThere => Side::There,
        Wrong::Unequal => match (body(Side::Here), body(Side::There)) {
            (Some(_), None) => Side::Here,
            (None, _) => Side::There,
            (Some(a), Some(b)) if a.same_value(b) && a.expires_at_ms() == b.expires_at_ms() => {
                Side::Here
            }
            (Some(_), Some(_)) => prefer.ok_or(Undecided::TwoValues)?,
        },
    };
    body(side).map(|_| side).ok_or(Undecided::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BodyParts, Context, Hlc, Origin};

    const NOW_MS: u64 = 1_000;

    fn origin(byte: u8) -> Origin {
        Origin::from_bytes([byte; 16])
    }

    fn body(
        origin_byte: u8,
        hlc: u64,
        value: Option<&str>,
        expires_at_ms: Option<u64>,
    ) -> Standing {
        let version = Version { hlc: Hlc::from_bits(hlc), origin: origin(origin_byte) };
        let (context, value) = (Context::new(), value.map(str::as_bytes));
        let parts = BodyParts { version, seen: Hlc::ZERO, context: &context, expires_at_ms, value };
        Standing::of(Body::new(&parts).bytes().clone())
    }

    fn live(hlc: u64, value: &str) -> Standing {
        body(1, hlc, Some(value), None)
    }

    /// The row with a format that nobody knows; its version can still be read.
    fn damaged(standing: &Standing) -> Standing {
        let mut bytes = standing.bytes.to_vec();
        bytes[0] = 0xee;
        Standing::of(bytes.into())
    }

    /// What both sides have, and up to where each has incorporated the writes of origin 1.
    /// What a side has in the place, and its head.
    type Had<'a> = (Option<&'a Standing>, u64);

    fn judged(here: Had<'_>, there: Had<'_>) -> Verdict {
        judged_above((here, 0), (there, 0))
    }

    /// Each side with its floor.
    fn judged_above(here: (Had<'_>, u64), there: (Had<'_>, u64)) -> Verdict {
        let heads = |hlc: u64| [(origin(1), Hlc::from_bits(hlc))].into_iter().collect::<Heads>();
        let vectors = [here, there].map(|((_, at), floor)| (heads(at), heads(floor)));
        let view = |standing, (heads, floor)| View { standing, heads, floor };
        let [ours, theirs] = vectors.each_ref().map(|(heads, floor)| (heads, floor));
        judge(view(here.0.0, ours), view(there.0.0, theirs), NOW_MS)
    }

    /// Else a repair would bring back what was deleted.
    #[test]
    fn what_may_have_died_where_the_other_side_has_not_heard_of_it_is_in_flux() {
        let old = live(5, "old");
        let (has, has_not) = ((Some(&old), 6), (None, 9));
        assert_eq!(judged_above((has, 0), (has_not, 7)), Verdict::InFlux);
        assert_eq!(judged_above((has_not, 7), (has, 0)), Verdict::InFlux);
        // It has heard of all that may be gone there, so this is not.
        assert_eq!(judged_above((has, 0), (has_not, 6)), Verdict::Differs(Wrong::OnlyHere));
        assert_eq!(judged_above((has_not, 6), (has, 0)), Verdict::Differs(Wrong::OnlyThere));
        // What it may have purged itself does not matter.
        assert_eq!(judged_above((has, 7), (has_not, 0)), Verdict::Differs(Wrong::OnlyHere));
        // Where both have a row, neither was purged.
        let new = live(7, "new");
        let newer = judged_above(((Some(&old), 7), 0), ((Some(&new), 9), 8));
        assert_eq!(newer, Verdict::Differs(Wrong::NewerThere));
    }

    #[test]
    fn what_is_on_its_way_is_in_flux_and_what_is_claimed_is_wrong() {
        let (old, new) = (live(5, "old"), live(7, "new"));
        for (here, there, wrong) in [
            (Some(&new), None, Wrong::OnlyHere),
            (None, Some(&new), Wrong::OnlyThere),
            (Some(&new), Some(&old), Wrong::NewerHere),
            (Some(&old), Some(&new), Wrong::NewerThere),
        ] {
            assert_eq!(judged((here, 7), (there, 7)), Verdict::Differs(wrong));
            // What the side claims that has the row is all the same.
            let lacks_here = matches!(wrong, Wrong::OnlyThere | Wrong::NewerThere);
            let (here_at, there_at) = if lacks_here { (6, 9) } else { (9, 6) };
            assert_eq!(judged((here, here_at), (there, there_at)), Verdict::InFlux, "{wrong:?}");
        }
    }

    #[test]
    fn a_tombstone_is_a_version_like_any_other() {
        let (old, dead) = (live(5, "old"), body(1, 7, None, None));
        assert_eq!(judged((Some(&old), 6), (Some(&dead), 7)), Verdict::InFlux);
        let kept = judged((Some(&old), 7), (Some(&dead), 7));
        assert_eq!(kept, Verdict::Differs(Wrong::NewerThere));
    }

    #[test]
    fn for_dead_rows_it_does_not_matter_who_has_purged_them() {
        let tombstone = body(1, 7, None, None);
        let expired = body(1, 7, Some("v"), Some(NOW_MS));
        for dead in [&tombstone, &expired] {
            assert_eq!(judged((Some(dead), 9), (None, 9)), Verdict::Equal);
            assert_eq!(judged((None, 9), (Some(dead), 9)), Verdict::Equal);
        }
        assert_eq!(judged((Some(&tombstone), 9), (Some(&expired), 9)), Verdict::Equal);
        let living = body(1, 7, Some("v"), Some(NOW_MS + 1));
        let lost = judged((Some(&living), 9), (None, 9));
        assert_eq!(lost, Verdict::Differs(Wrong::OnlyHere));
    }

    #[test]
    fn one_write_has_one_row() {
        let (one, two) = (live(5, "one"), live(5, "two"));
        assert_eq!(judged((Some(&one), 9), (Some(&one), 9)), Verdict::Equal);
        let unequal = Verdict::Differs(Wrong::Unequal);
        assert_eq!(judged((Some(&one), 0), (Some(&two), 0)), unequal);
        assert_eq!(judged((Some(&one), 9), (Some(&damaged(&one)), 9)), unequal);
    }

    #[test]
    fn the_right_row_is_the_greater_the_sound_or_the_preferred_one() {
        let (one, two) = (live(5, "one"), live(5, "two"));
        let (newest, bad) = (live(6, "newest"), damaged(&one));
        let (here, there) = (Some(Side::Here), Some(Side::There));
        let of = |wrong, a, b, prefer| right_side(wrong, a, b, prefer);
        assert_eq!(of(Wrong::OnlyHere, Some(&one), None, there), Ok(Side::Here));
        assert_eq!(of(Wrong::OnlyThere, None, Some(&one), here), Ok(Side::There));
        assert_eq!(of(Wrong::NewerThere, Some(&one), Some(&newest), here), Ok(Side::There));
        assert_eq!(of(Wrong::Unequal, Some(&one), Some(&two), None), Err(Undecided::TwoValues));
        assert_eq!(of(Wrong::Unequal, Some(&one), Some(&two), here), Ok(Side::Here));
        assert_eq!(of(Wrong::Unequal, Some(&one), Some(&two), there), Ok(Side::There));
        assert_eq!(of(Wrong::Unequal, Some(&bad), Some(&one), here), Ok(Side::There));
        assert_eq!(of(Wrong::Unequal, Some(&one), Some(&bad), there), Ok(Side::Here));
        assert_eq!(of(Wrong::Unequal, Some(&bad), Some(&bad), here), Err(Undecided::Damaged));
        // An older row is no stand-in for a newer one that cannot be read.
        let newer = damaged(&newest);
        assert_eq!(of(Wrong::NewerHere, Some(&newer), Some(&one), there), Err(Undecided::Damaged));
    }
}
