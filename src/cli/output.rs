//! What is printed: rows as JSON or text, and stdout that may be closed at any time.

use std::io::{self, Write};

use base64::{Engine, prelude::BASE64_STANDARD};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::{client::ClientError, wire::proto};

/// Why nothing more can be printed.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    /// The other end of the pipe is closed: whoever reads has enough.
    #[error("stdout is closed")]
    ReaderGone,
    /// Anything else.
    #[error("cannot write to stdout: {0}")]
    Write(io::Error),
}

/// Shows that long work of a node goes on; its message says how far.
pub(super) fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    ProgressBar::new_spinner().with_style(style.expect("a sound template"))
}

/// Writes to stdout, at once.
pub(super) fn print(bytes: &[u8]) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => OutputError::ReaderGone,
        _ => OutputError::Write(error),
    })
}

/// Adds a line of JSON.
pub(super) fn json_line(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *out, value).expect("plain structs and strings always serialize");
    out.push(b'\n');
}

/// A row as clients see it. Absent members are left out; `expires_at` is always there.
#[derive(Serialize)]
struct RowLine<'a> {
    table: &'a str,
    #[serde(flatten)]
    key: KeyText<'a>,
    #[serde(flatten)]
    value: Option<ValueText<'a>>,
    #[serde(flatten)]
    version: VersionText,
    site: &'a str,
    expires_at: Option<String>,
}

/// What a write answers.
#[derive(Serialize)]
struct WrittenLine<'a> {
    table: &'a str,
    #[serde(flatten)]
    key: KeyText<'a>,
    #[serde(flatten)]
    version: VersionText,
    #[serde(skip_serializing_if = "Option::is_none")]
    existed: Option<bool>,
}

/// Text where it is UTF-8, else base64.
#[derive(Serialize)]
pub(super) enum KeyText<'a> {
    #[serde(rename = "key")]
    Text(&'a str),
    #[serde(rename = "key_base64")]
    Base64(String),
}

/// Text where it is UTF-8, else base64.
#[derive(Serialize)]
pub(super) enum ValueText<'a> {
    #[serde(rename = "value")]
    Text(&'a str),
    #[serde(rename = "value_base64")]
    Base64(String),
}

#[derive(Serialize)]
pub(super) struct VersionText {
    /// A string: JSON's readers lose the low bits of so large a number.
    pub(super) hlc: String,
    pub(super) origin: String,
}

impl<'a> KeyText<'a> {
    pub(super) fn of(key: &'a [u8]) -> KeyText<'a> {
        match std::str::from_utf8(key) {
            Ok(text) => KeyText::Text(text),
            Err(_) => KeyText::Base64(BASE64_STANDARD.encode(key)),
        }
    }
}

impl<'a> ValueText<'a> {
    pub(super) fn of(value: &'a [u8]) -> ValueText<'a> {
        match std::str::from_utf8(value) {
            Ok(text) => ValueText::Text(text),
            Err(_) => ValueText::Base64(BASE64_STANDARD.encode(value)),
        }
    }
}

impl VersionText {
    pub(super) fn of(version: Option<&proto::Version>) -> Result<VersionText, ClientError> {
        let version = version.ok_or(ClientError::Incomplete("version"))?;
        let origin =
            Uuid::from_slice(&version.origin).map_err(|_| ClientError::Incomplete("origin"))?;
        Ok(VersionText { hlc: version.hlc.to_string(), origin: origin.to_string() })
    }
}

/// Adds a row as a line of JSON. `with_value` is false where only keys were asked for.
pub(super) fn row_json(
    out: &mut Vec<u8>,
    row: &proto::Row,
    with_value: bool,
) -> Result<(), ClientError> {
    let line = RowLine {
        table: &row.table,
        key: KeyText::of(&row.key),
        value: with_value.then(|| ValueText::of(&row.value)),
        version: VersionText::of(row.version.as_ref())?,
        site: &row.site,
        expires_at: row.expire_time.as_ref().map(time_text),
    };
    json_line(out, &line);
    Ok(())
}

/// Adds what a write answered as a line of JSON. `existed` is a delete's.
pub(super) fn written_json(
    out: &mut Vec<u8>,
    table: &str,
    key: &[u8],
    version: &proto::Version,
    existed: Option<bool>,
) -> Result<(), ClientError> {
    let version = VersionText::of(Some(version))?;
    json_line(out, &WrittenLine { table, key: KeyText::of(key), version, existed });
    Ok(())
}

/// Adds bytes so that they stay on one line and between two tabs: control characters, backslashes
/// and what is not UTF-8 are escaped.
pub(super) fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                letter => {
                    let mut utf8 = [0; 4];
                    let utf8 = letter.encode_utf8(&mut utf8).as_bytes();
                    if letter.is_control() {
                        escape_each(out, utf8);
                    } else {
                        out.extend_from_slice(utf8);
                    }
                }
            }
        }
        escape_each(out, chunk.invalid());
    }
}

fn escape_each(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
    }
}

/// RFC 3339 with milliseconds. A time that no calendar has is shown as the nearest one.
pub(super) fn time_text(time: &prost_types::Timestamp) -> String {
    let nearest = if time.seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    let timestamp = Timestamp::new(time.seconds, time.nanos).unwrap_or(nearest);
    format!("{timestamp:.3}")
}

/// Text from elsewhere, for one line of a terminal.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace()
        .map(|word| word.replace(char::is_control, "?"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &'static [u8], value: &'static [u8]) -> proto::Row {
        proto::Row {
            table: "t".to_owned(),
            key: key.into(),
            value: value.into(),
            version: Some(proto::Version { hlc: u64::MAX, origin: vec![0x11; 16].into() }),
            expire_time: None,
            site: "fra".to_owned(),
        }
    }

    fn json(row: &proto::Row, with_value: bool) -> String {
        let mut out = Vec::new();
        row_json(&mut out, row, with_value).unwrap();
        String::from_utf8(out).unwrap()
    }

    const REST: &str = r#""hlc":"18446744073709551615","origin":"11111111-1111-1111-1111-111111111111","site":"fra""#;

    #[test]
    fn a_row_is_one_line_of_json() {
        assert_eq!(
            json(&row(b"k\n\"", "ü".as_bytes()), true),
            format!(
                "{{\"table\":\"t\",\"key\":\"k\\n\\\"\",\"value\":\"ü\",{REST},\"expires_at\":null}}\n"
            )
        );
        assert_eq!(
            json(&row(b"\xff", b"\xfe\x00"), true),
            format!(
                "{{\"table\":\"t\",\"key_base64\":\"/w==\",\"value_base64\":\"/gA=\",{REST},\"expires_at\":null}}\n"
            )
        );
        let expiring = proto::Row {
            expire_time: Some(prost_types::Timestamp { seconds: 0, nanos: 1_999_999 }),
            ..row(b"k", b"")
        };
        assert_eq!(
            json(&expiring, false),
            format!(
                "{{\"table\":\"t\",\"key\":\"k\",{REST},\"expires_at\":\"1970-01-01T00:00:00.001Z\"}}\n"
            )
        );
    }

    #[test]
    fn text_that_would_break_a_line_is_escaped() {
        let mut out = Vec::new();
        escape(&mut out, b"a\tb\\n\n\r\x00\x1b[0m\xff\xc3\xbc \xc2\x85");
        let expected = "a\\tb\\\\n\\n\\r\\x00\\x1b[0m\\xffü \\xc2\\x85";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn messages_are_one_line_and_drive_no_terminal() {
        assert_eq!(one_line("a\n  b\tc\x1b[2J"), "a b c?[2J");
    }
}
