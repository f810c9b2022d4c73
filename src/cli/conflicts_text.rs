//! Conflicts for people, as a table and in whole, and for programs.

use std::fmt::Write;

use serde::Serialize;
use uuid::Uuid;

use super::output::{KeyText, ValueText, VersionText, escape, time_text};
use crate::{client::ClientError, wire::proto};

/// How wide the columns are that may be cut.
const TABLE_WIDTH: usize = 14;
const KEY_WIDTH: usize = 20;
const VALUE_WIDTH: usize = 28;
/// A value is shown in whole up to so many characters.
const SHOWN_MAX: usize = 4_000;

/// Above [`row`]s.
pub(super) fn heading() -> String {
    columns(["LOST", "TABLE", "KEY", "VALUE", "BY", "AGAINST", "ID"])
}

fn columns([lost, table, key, value, by, against, id]: [&str; 7]) -> String {
    format!(
        "{lost:24}  {table:TABLE_WIDTH$}  {key:KEY_WIDTH$}  {value:VALUE_WIDTH$}  {by:8}  \
         {against:8}  {id}\n"
    )
}

/// A conflict as one line of a table.
pub(super) fn row(conflict: &proto::Conflict) -> Result<String, ClientError> {
    let loser = loser_of(conflict)?;
    Ok(columns([
        &loser.write_time.as_ref().map(time_text).unwrap_or_default(),
        &cut(&conflict.table, TABLE_WIDTH),
        &cut(&escaped(&conflict.key), KEY_WIDTH),
        &cut(&value_text(loser), VALUE_WIDTH),
        site(&loser.site),
        site(&conflict.winner_site),
        &conflict.id,
    ]))
}

/// Everything of a conflict.
pub(super) fn whole(found: &proto::GetConflictResponse) -> Result<String, ClientError> {
    let conflict = found.conflict.as_ref().ok_or(ClientError::Incomplete("conflict"))?;
    let loser = loser_of(conflict)?;
    let winner = conflict.winner.as_ref().ok_or(ClientError::Incomplete("winner"))?;
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        writeln!(text, "{label:>9}: {value}").expect("a String takes every text");
    };
    line("Conflict", &conflict.id);
    line("Table", &conflict.table);
    line("Key", &escaped(&conflict.key));
    line("Lost", &made(&loser.site, loser.write_time.as_ref(), &conflict.id));
    line("Value", &cut(&value_text(loser), SHOWN_MAX));
    if let Some(expiry) = &loser.expire_time {
        line("Expires", &time_text(expiry));
    }
    let winner_id = id_of(winner)?;
    line("Won", &made(&conflict.winner_site, conflict.winner_time.as_ref(), &winner_id));
    match &found.standing {
        None => line("Now", "nothing"),
        Some(now) => {
            let id = id_of(now.version.as_ref().ok_or(ClientError::Incomplete("version"))?)?;
            if id == winner_id {
                line("Now", "what won");
            } else {
                line("Now", &made(&now.site, now.write_time.as_ref(), &id));
            }
            line("Value", &cut(&value_text(now), SHOWN_MAX));
            if let Some(expiry) = &now.expire_time {
                line("Expires", &time_text(expiry));
            }
        }
    }
    Ok(text)
}

fn made(by: &str, at: Option<&prost_types::Timestamp>, id: &str) -> String {
    let at = at.map(time_text).unwrap_or_default();
    format!("written at {} {at} ({id})", site(by))
}

fn loser_of(conflict: &proto::Conflict) -> Result<&proto::RowVersion, ClientError> {
    conflict.loser.as_ref().ok_or(ClientError::Incomplete("loser"))
}

/// A version as the id of a conflict.
pub(super) fn id_of(version: &proto::Version) -> Result<String, ClientError> {
    let origin =
        Uuid::from_slice(&version.origin).map_err(|_| ClientError::Incomplete("origin"))?;
    Ok(format!("{}@{origin}", version.hlc))
}

fn site(name: &str) -> &str {
    if name.is_empty() { "?" } else { name }
}

fn value_text(row: &proto::RowVersion) -> String {
    if row.deleted { "(deleted)".to_owned() } else { escaped(&row.value) }
}

fn escaped(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    escape(&mut out, bytes);
    String::from_utf8(out).expect("what is not UTF-8 is escaped")
}

fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width - 1).chain(['…']).collect(),
    }
}

/// A conflict as one line of JSON.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    id: &'a str,
    table: &'a str,
    #[serde(flatten)]
    key: KeyText<'a>,
    loser: VersionLine<'a>,
    winner: WinnerLine<'a>,
}

/// A conflict and what stands now.
#[derive(Serialize)]
pub(super) struct Whole<'a> {
    #[serde(flatten)]
    conflict: Line<'a>,
    standing: Option<VersionLine<'a>>,
}

#[derive(Serialize)]
struct VersionLine<'a> {
    deleted: bool,
    /// Not there for a delete.
    #[serde(flatten)]
    value: Option<ValueText<'a>>,
    #[serde(flatten)]
    version: VersionText,
    site: Option<&'a str>,
    written_at: Option<String>,
    expires_at: Option<String>,
}

#[derive(Serialize)]
struct WinnerLine<'a> {
    #[serde(flatten)]
    version: VersionText,
    site: Option<&'a str>,
    written_at: Option<String>,
}

impl<'a> Line<'a> {
    pub(super) fn of(conflict: &'a proto::Conflict) -> Result<Line<'a>, ClientError> {
        Ok(Line {
            id: &conflict.id,
            table: &conflict.table,
            key: KeyText::of(&conflict.key),
            loser: VersionLine::of(loser_of(conflict)?)?,
            winner: WinnerLine {
                version: VersionText::of(conflict.winner.as_ref())?,
                site: known(&conflict.winner_site),
                written_at: conflict.winner_time.as_ref().map(time_text),
            },
        })
    }
}

impl<'a> Whole<'a> {
    pub(super) fn of(found: &'a proto::GetConflictResponse) -> Result<Whole<'a>, ClientError> {
        let conflict = found.conflict.as_ref().ok_or(ClientError::Incomplete("conflict"))?;
        Ok(Whole {
            conflict: Line::of(conflict)?,
            standing: found.standing.as_ref().map(VersionLine::of).transpose()?,
        })
    }
}

impl<'a> VersionLine<'a> {
    fn of(row: &'a proto::RowVersion) -> Result<VersionLine<'a>, ClientError> {
        Ok(VersionLine {
            deleted: row.deleted,
            value: (!row.deleted).then(|| ValueText::of(&row.value)),
            version: VersionText::of(row.version.as_ref())?,
            site: known(&row.site),
            written_at: row.write_time.as_ref().map(time_text),
            expires_at: row.expire_time.as_ref().map(time_text),
        })
    }
}

fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: [u8; 16] = [0x11; 16];

    fn conflict(value: &'static [u8]) -> proto::Conflict {
        proto::Conflict {
            id: "7@11111111-1111-1111-1111-111111111111".to_owned(),
            table: "sessions".to_owned(),
            key: "user:1".into(),
            loser: Some(proto::RowVersion {
                version: Some(proto::Version { hlc: 7, origin: ORIGIN.to_vec().into() }),
                site: "nyc".to_owned(),
                write_time: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
                value: value.into(),
                ..Default::default()
            }),
            winner: Some(proto::Version { hlc: 9, origin: ORIGIN.to_vec().into() }),
            winner_site: String::new(),
            winner_time: None,
        }
    }

    #[test]
    fn a_row_of_the_table_stays_in_its_columns_whatever_is_in_it() {
        let long = b"a\tb\n0123456789012345678901234567890123456789";
        let line = row(&conflict(long)).unwrap();
        let expected = "1970-01-01T00:00:00.000Z  sessions        user:1                \
                        a\\tb\\n012345678901234567890…  nyc       ?         \
                        7@11111111-1111-1111-1111-111111111111\n";
        assert_eq!(line, expected);
        let at = |text: &str, sign| text.chars().position(|c| c == sign).unwrap();
        assert!(heading().ends_with("  ID\n"));
        assert_eq!(heading().chars().count() - 3, at(&line, '@') - 1, "ids stand below ID");
    }

    #[test]
    fn a_whole_conflict_tells_whether_the_winner_still_stands() {
        let version = |hlc| Some(proto::Version { hlc, origin: ORIGIN.to_vec().into() });
        let standing = |hlc| {
            Some(proto::RowVersion { version: version(hlc), value: "now".into(), ..<_>::default() })
        };
        let text = |standing| {
            whole(&proto::GetConflictResponse { conflict: Some(conflict(b"lost")), standing })
                .unwrap()
        };
        let winner = text(standing(9));
        assert!(winner.contains("    Value: lost\n"), "{winner}");
        assert!(winner.contains("      Now: what won\n    Value: now\n"), "{winner}");
        assert!(text(standing(10)).contains("      Now: written at ?"), "{}", text(standing(10)));
        assert!(text(None).ends_with("      Now: nothing\n"));
    }

    #[test]
    fn json_has_the_whole_value_and_none_for_a_delete() {
        let json =
            |conflict: &proto::Conflict| serde_json::to_value(Line::of(conflict).unwrap()).unwrap();
        assert_eq!(json(&conflict(b"\xff"))["loser"]["value_base64"], "/w==");
        let mut deleted = conflict(b"");
        deleted.loser.as_mut().unwrap().deleted = true;
        let line = json(&deleted);
        assert_eq!((&line["loser"]["deleted"], line["loser"].get("value")), (&true.into(), None));
        assert_eq!(line["winner"]["hlc"], "9");
    }
}
