//! Keys, values and times to live, as they stand on the command line.

use std::{
    ffi::OsString,
    io::{self, Read},
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;

use crate::config::VALUE_BYTES_MAX_BOUND;

/// The bytes of an argument, whether they are UTF-8 or not.
pub(super) fn bytes_of(argument: OsString) -> Bytes {
    argument.into_encoded_bytes().into()
}

/// The bytes of a value; `-` reads them from stdin.
pub(super) fn read_value(argument: OsString) -> anyhow::Result<Bytes> {
    if argument != "-" {
        return Ok(bytes_of(argument));
    }
    let mut value = Vec::new();
    // One byte more than any node takes tells that there is too much.
    let bound = VALUE_BYTES_MAX_BOUND as u64;
    io::stdin()
        .lock()
        .take(bound + 1)
        .read_to_end(&mut value)
        .context("value: cannot read stdin")?;
    if value.len() > VALUE_BYTES_MAX_BOUND {
        bail!("value: stdin holds more than {bound} bytes, the most a value may have");
    }
    Ok(value.into())
}

/// A time to live, such as `5m`.
pub(super) fn parse_ttl(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(ttl) if ttl >= Duration::from_millis(1) => Ok(ttl),
        Ok(_) => Err("a row lives at least 1ms".to_owned()),
        Err(_) => Err("write numbers with units, such as 500ms, 90s or 5m".to_owned()),
    }
}
