//! The nodes to exchange with: those of `peer`, and those of `[[peers]]` in the file, which have settings
//! of their own.
//!
//! ```toml
//! [[peers]]
//! address = "http://nyc.example:7400"
//! compression = "on"                    # default: that of the whole node
//! ```
//!
//! Between the file and here a table is one text, as every setting is: `http://HOST:PORT compression=on`.

use std::path::Path;

use ::config::{Value, ValueKind};

use super::{
    ConfigError, NodeUrl, Reader, invalid_in_file,
    layers::Source,
    setting::{self, COMPRESSION, PEER, PEERS},
    suggest::nearest,
};
use crate::protocol::Compression;

/// A node to exchange with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it listens.
    pub address: NodeUrl,
    /// Whether what goes to it is compressed.
    pub compression: Compression,
}

const NAMES: [&str; 2] = ["peers.address", "peers.compression"];
const EXAMPLE: &str = "write [[peers]], then address = \"http://HOST:PORT\" below it";

/// One text for each table of `[[peers]]` in the file at `path`.
pub(super) fn texts_of(kind: ValueKind, path: &Path) -> Result<Vec<String>, ConfigError> {
    let ValueKind::Array(tables) = kind else { return Err(invalid(path, EXAMPLE)) };
    tables.into_iter().map(|table| text_of(table, path)).collect()
}

fn text_of(table: Value, path: &Path) -> Result<String, ConfigError> {
    let ValueKind::Table(table) = table.kind else { return Err(invalid(path, EXAMPLE)) };
    let mut entries: Vec<_> = table.into_iter().collect();
    // The address is first by its name.
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let (mut address, mut rest) = (None, String::new());
    for (key, value) in entries {
        let name = format!("{}.{key}", PEERS.name);
        if !NAMES.contains(&name.as_str()) {
            let (file, suggestion) = (path.to_owned(), nearest(&name, NAMES));
            return Err(ConfigError::UnknownSetting { file, name, suggestion });
        }
        let text = match value.kind {
            ValueKind::String(text) if !text.contains(char::is_whitespace) => text,
            _ => return Err(invalid(path, &format!("{key} must be one text without spaces"))),
        };
        match key.as_str() {
            "address" => address = Some(text),
            _ => rest += &format!(" {key}={text}"),
        }
    }
    match address {
        Some(address) => Ok(address + &rest),
        None => Err(invalid(path, &format!("a peer has no address: {EXAMPLE}"))),
    }
}

fn invalid(path: &Path, reason: &str) -> ConfigError {
    invalid_in_file(&PEERS, path, reason)
}

impl Reader<'_> {
    /// The peers of both settings. A variable or a flag replaces the file's, of `peer` and of `[[peers]]`;
    /// what the file says of an address holds all the same.
    pub(super) fn peers(&self) -> Result<Vec<Peer>, ConfigError> {
        let everywhere = self.required(&COMPRESSION, str::parse)?;
        let tables = self.peer_tables(everywhere)?;
        let mut peers: Vec<Peer> = Vec::new();
        for text in self.layers.list(&PEER) {
            let address: NodeUrl = text.parse().map_err(|reason| self.invalid(&PEER, reason))?;
            refuse_twice(self, &PEER, &peers, &address)?;
            let table = tables.iter().find(|table| table.address == address);
            let compression = table.map_or(everywhere, |table| table.compression);
            peers.push(Peer { address, compression });
        }
        let replaced =
            matches!(self.layers.source(&PEER), Source::Environment(_) | Source::Flag(_));
        if !replaced {
            for table in tables {
                refuse_twice(self, &PEERS, &peers, &table.address)?;
                peers.push(table);
            }
        }
        Ok(peers)
    }

    fn peer_tables(&self, everywhere: Compression) -> Result<Vec<Peer>, ConfigError> {
        let peer = |text: String| {
            let (address, rest) = text.split_once(' ').unwrap_or((&text, ""));
            let compression = match rest.strip_prefix("compression=") {
                Some(text) => text.parse().map_err(|reason| format!("compression: {reason}"))?,
                None => everywhere,
            };
            Ok(Peer { address: address.parse()?, compression })
        };
        let peers = self.layers.list(&PEERS).into_iter().map(peer);
        peers.collect::<Result<_, String>>().map_err(|reason| self.invalid(&PEERS, reason))
    }
}

fn refuse_twice(
    read: &Reader<'_>,
    setting: &'static setting::Setting,
    peers: &[Peer],
    address: &NodeUrl,
) -> Result<(), ConfigError> {
    if peers.iter().any(|peer| peer.address == *address) {
        let reason = format!("{address} is named twice: name each peer once");
        return Err(read.invalid(setting, reason));
    }
    Ok(())
}
