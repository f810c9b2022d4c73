//! The bytes of the store's keys and small values. All numbers are big-endian, so that they sort.

use bytes::{Buf, BufMut, Bytes};

use crate::model::{Body, Context, Heads, Hlc, Key, Knowledge, Origin, Row, TableName, Version};

use super::StoreError;

/// The number that stands for a table's name within this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TableId(pub(super) u32);

/// Where a row stands: 4 bytes of table id, then the key.
pub(super) fn place(table: TableId, key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(4 + key.len());
    set_place(&mut place, table, key);
    place
}

/// The same, in place of what `place` held.
pub(super) fn set_place(place: &mut Vec<u8>, table: TableId, key: &[u8]) {
    place.clear();
    place.put_u32(table.0);
    place.put_slice(key);
}

/// The two parts of a place.
pub(super) fn split_place(place: &Bytes) -> Result<(TableId, Key), StoreError> {
    let table = place.first_chunk::<4>().ok_or(StoreError::Damaged("the place of a row"))?;
    let key = Key::new(place.slice(4..)).map_err(|_| StoreError::Damaged("the key of a row"))?;
    Ok((TableId(u32::from_be_bytes(*table)), key))
}

/// The row of `table` in its place.
pub(super) fn row(table: TableName, place: &Bytes, body: Bytes) -> Result<Row, StoreError> {
    let (_, key) = split_place(place)?;
    Ok(Row { table, key, body: self::body(body)? })
}

/// The change index's key: origin, then hlc.
pub(super) fn change_key(version: Version) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(version.origin.as_bytes());
    key[16..].copy_from_slice(&version.hlc.bits().to_be_bytes());
    key
}

/// What [`change_key`] made.
pub(super) fn split_change_key(key: &[u8]) -> Result<Version, StoreError> {
    const DAMAGED: StoreError = StoreError::Damaged("a key of the change index");
    let (origin, hlc) = key.split_first_chunk::<16>().ok_or(DAMAGED)?;
    Ok(Version {
        origin: Origin::from_bytes(*origin),
        hlc: Hlc::from_bits(u64::from_be_bytes(hlc.try_into().map_err(|_| DAMAGED)?)),
    })
}

/// The key of an entry for a row that is dead, or will be: from when on nobody can need it, then its
/// place.
pub(super) fn dead_key(from: Hlc, place: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + place.len());
    key.put_u64(from.bits());
    key.put_slice(place);
    key
}

/// What [`dead_key`] made.
pub(super) fn split_dead_key(key: &Bytes) -> Result<(Hlc, Bytes), StoreError> {
    let from = key.first_chunk::<8>().ok_or(StoreError::Damaged("an entry of a dead row"))?;
    Ok((Hlc::from_bits(u64::from_be_bytes(*from)), key.slice(8..)))
}

/// From when on a row may be purged, once every member has it: a tombstone from its stamp on, a row
/// that expires from then on. `None`: it never dies.
pub(super) fn dead_from(body: &Body) -> Option<Hlc> {
    let version = body.version();
    if body.is_tombstone() {
        return Some(version.hlc);
    }
    // The horizon must have passed the whole of the last millisecond.
    body.expires_at_ms().map(|ms| version.hlc.max(Hlc::at_ms(ms.saturating_add(1))))
}

/// The conflict journal's key: hlc, then origin, so that the oldest come first.
pub(super) fn conflict_key(loser: Version) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&loser.hlc.bits().to_be_bytes());
    key[8..].copy_from_slice(loser.origin.as_bytes());
    key
}

/// What [`conflict_key`] made.
pub(super) fn split_conflict_key(key: &[u8]) -> Result<Version, StoreError> {
    const DAMAGED: StoreError = StoreError::Damaged("a key of the conflict journal");
    let (hlc, origin) = key.split_first_chunk::<8>().ok_or(DAMAGED)?;
    Ok(Version {
        hlc: Hlc::from_bits(u64::from_be_bytes(*hlc)),
        origin: Origin::from_bytes(origin.try_into().map_err(|_| DAMAGED)?),
    })
}

/// A conflict: winner's hlc and origin, 1 byte table length, table, 2 bytes key length, key, then
/// the losing body.
pub(super) fn conflict_value(winner: Version, loser: &Row) -> Vec<u8> {
    let table = loser.table.as_str().as_bytes();
    let key = loser.key.as_slice();
    let mut value = Vec::with_capacity(27 + table.len() + key.len() + loser.body.bytes().len());
    value.put_slice(&conflict_key(winner));
    value.put_u8(u8::try_from(table.len()).expect("a table name of at most 63 bytes"));
    value.put_slice(table);
    value.put_u16(u16::try_from(key.len()).expect("a key of at most 512 bytes"));
    value.put_slice(key);
    value.put_slice(loser.body.bytes());
    value
}

/// What [`conflict_value`] made.
pub(super) fn split_conflict_value(value: Bytes) -> Result<(Version, Row), StoreError> {
    const DAMAGED: StoreError = StoreError::Damaged("an entry of the conflict journal");
    let mut rest = value;
    let mut take =
        |length: usize| (rest.len() >= length).then(|| rest.split_to(length)).ok_or(DAMAGED);
    let winner = take(24)?;
    let winner = split_conflict_key(&winner)?;
    let table_bytes = usize::from(take(1)?.get_u8());
    let table = take(table_bytes)?;
    let table = std::str::from_utf8(&table).ok().and_then(|name| TableName::of_any(name).ok());
    let key_bytes = usize::from(take(2)?.get_u16());
    let key = Key::new(take(key_bytes)?).map_err(|_| DAMAGED)?;
    let body = Body::decode(rest).map_err(|_| DAMAGED)?;
    Ok((winner, Row { table: table.ok_or(DAMAGED)?, key, body }))
}

/// Before an origin in the state: what that store is known to have.
pub(super) const CARRIED: &[u8] = b"carried:";

/// The state's key for what a store is known to have.
pub(super) fn carried_key(origin: Origin) -> Vec<u8> {
    [CARRIED, origin.as_bytes()].concat()
}

/// What [`carried_key`] made.
pub(super) fn split_carried_key(key: &[u8]) -> Result<Origin, StoreError> {
    let origin = key.strip_prefix(CARRIED).and_then(|origin| origin.try_into().ok());
    origin.map(Origin::from_bytes).ok_or(StoreError::Damaged("a store that is known by its files"))
}

/// What stands under such a key: heads.
pub(super) fn carried_value(value: &[u8]) -> Result<Heads, StoreError> {
    Heads::from_bytes(value).ok_or(StoreError::Damaged("what a store is known to have"))
}

/// What is known of a key: 8 bytes of `seen`, then the context.
pub(super) fn known_value(known: &Knowledge) -> Vec<u8> {
    let mut value = Vec::with_capacity(8 + known.context.len() * 24);
    value.put_u64(known.seen.bits());
    value.put_slice(&known.context.to_bytes());
    value
}

/// What [`known_value`] made.
pub(super) fn split_known_value(value: &[u8]) -> Result<Knowledge, StoreError> {
    const DAMAGED: StoreError = StoreError::Damaged("what is known of a key");
    let (seen, context) = value.split_first_chunk::<8>().ok_or(DAMAGED)?;
    Ok(Knowledge {
        seen: Hlc::from_bits(u64::from_be_bytes(*seen)),
        context: Context::from_bytes(context).ok_or(DAMAGED)?,
    })
}

/// A row's body from the store's bytes.
pub(super) fn body(bytes: Bytes) -> Result<Body, StoreError> {
    Body::decode(bytes).map_err(|_| StoreError::Damaged("a row"))
}

/// The version of a row's body, from the store's bytes.
pub(super) fn version_of_body(bytes: &[u8]) -> Result<Version, StoreError> {
    Body::version_in(bytes).ok_or(StoreError::Damaged("a row"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BodyParts;

    #[test]
    fn keys_sort_as_they_must() {
        let version = |hlc, origin: u8| Version {
            hlc: Hlc::from_bits(hlc),
            origin: Origin::from_bytes([origin; 16]),
        };
        assert!(change_key(version(0x1_00, 1)) > change_key(version(0xff, 1)));
        assert!(change_key(version(1, 2)) > change_key(version(2, 1)));
        assert!(conflict_key(version(2, 1)) > conflict_key(version(1, 2)));
        assert_eq!(split_change_key(&change_key(version(7, 3))).unwrap(), version(7, 3));
        assert!(split_change_key(&[0; 23]).is_err());
        assert!(place(TableId(1), b"\xff") < place(TableId(2), b""));
    }

    #[test]
    fn values_round_trip() {
        let version = Version { hlc: Hlc::from_bits(9), origin: Origin::from_bytes([1; 16]) };
        let row = Row {
            table: TableName::of_any("sessions").unwrap(),
            key: Key::new("abc").unwrap(),
            body: Body::new(&BodyParts {
                version,
                seen: Hlc::ZERO,
                context: &Context::new(),
                expires_at_ms: None,
                value: Some(b"lost"),
            }),
        };
        let winner = Version { hlc: Hlc::from_bits(10), ..version };
        let value = Bytes::from(conflict_value(winner, &row));
        assert_eq!(split_conflict_value(value.clone()).unwrap(), (winner, row));
        assert!(split_conflict_value(value.slice(..30)).is_err());

        let known = Knowledge {
            seen: Hlc::from_bits(3),
            context: [(version.origin, version.hlc)].into_iter().collect(),
        };
        assert_eq!(split_known_value(&known_value(&known)).unwrap(), known);
        assert!(split_known_value(&[1, 2]).is_err());
    }
}
