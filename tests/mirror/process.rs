//! The mirror of a real process, its load, and the judge that asks the process for its rows.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lastword::{
    client::{Client, Options},
    model::{Heads, Hlc, Origin},
    wire::proto::{self, DeleteRequest, Mutation, PutRequest, mutation},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    common::{mariadb::MariaDb, node::Node},
    world::{Columns, LIMIT, checkpoint, hex, mirrored},
};

const KEYS: u64 = 400;
/// How soon a node that is down is tried again.
const AGAIN: Duration = Duration::from_millis(10);

pub(crate) fn client(node: &Node) -> Client {
    let options = Options { request_timeout: Duration::from_secs(30), ..Options::default() };
    Client::new([node.url()], options).unwrap()
}

/// Random writes, deletes and expiring rows, on and on, whether or not the node is up.
pub(crate) struct ClientLoad {
    task: JoinHandle<()>,
    stop: CancellationToken,
    pub(crate) acknowledged: Arc<AtomicU64>,
}

impl ClientLoad {
    pub(crate) fn start(node: &Node) -> ClientLoad {
        let (mut client, stop) = (client(node), CancellationToken::new());
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (stop.clone(), Arc::clone(&acknowledged));
        let task = tokio::spawn(async move {
            while !stopped.is_cancelled() {
                let mutations = (0..20).map(|_| random_mutation()).collect();
                match client.batch(mutations).await {
                    Ok(_) => {
                        counted.fetch_add(1, Ordering::Relaxed);
                        // A busy site, not all that the machine can do: MySQL has to catch up.
                        sleep(Duration::from_millis(3)).await;
                    }
                    Err(_) => sleep(AGAIN).await,
                }
            }
        });
        ClientLoad { task, stop, acknowledged }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn random_mutation() -> Mutation {
    let key = format!("{}", rand::random::<u64>() % KEYS).into_bytes().into();
    let (table, value) = ("t".to_owned(), format!("{}", rand::random::<u128>()));
    let put = |ttl: Option<Duration>| {
        mutation::Mutation::Put(PutRequest {
            table: table.clone(),
            key: bytes::Bytes::clone(&key),
            value: value.clone().into_bytes().into(),
            ttl: ttl.map(|ttl| ttl.try_into().unwrap()),
            ..PutRequest::default()
        })
    };
    let change = match rand::random::<u8>() % 8 {
        0 => mutation::Mutation::Delete(DeleteRequest {
            table: table.clone(),
            key: key.clone(),
            ..DeleteRequest::default()
        }),
        1 => put(Some(Duration::from_millis(50))),
        2 => put(Some(Duration::from_secs(3_600))),
        _ => put(None),
    };
    Mutation { mutation: Some(change) }
}

/// The live rows of a table, as the node gives them.
pub(crate) async fn stored(client: &mut Client, table: &str) -> BTreeMap<String, Columns> {
    let request = proto::ScanRequest { table: table.to_owned(), ..Default::default() };
    let mut rows = BTreeMap::new();
    let mut scan = client.scan(request).await.unwrap();
    while let Some(part) = scan.next().await.unwrap() {
        for row in part {
            let version = row.version.unwrap();
            let us = |time: prost_types::Timestamp| {
                (time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000).to_string()
            };
            let columns = Columns {
                value: hex(&row.value),
                hlc: version.hlc.to_string(),
                origin: hex(&version.origin),
                updated_us: (Hlc::from_bits(version.hlc).ms() * 1_000).to_string(),
                expires_us: row.expire_time.map_or_else(|| "NULL".to_owned(), us),
            };
            rows.insert(hex(&row.key), columns);
        }
    }
    rows
}

/// The heads that the node names.
pub(crate) async fn heads(client: &mut Client) -> Heads {
    let status = client.status().await.unwrap();
    let heads = status.node.unwrap().heads.into_iter();
    heads.map(|head| (head.origin.parse::<Origin>().unwrap(), Hlc::from_bits(head.hlc))).collect()
}

/// Judges the table of the load, once the mirror has caught up and what lives for moments has gone: MySQL's
/// rows are the node's, byte for byte, and the checkpoint names them.
pub(crate) async fn judge(node: &Node, mariadb: &MariaDb, database: &str) -> Heads {
    let mut client = self::client(node);
    let deadline = Instant::now() + LIMIT;
    while let Err(reason) = compare(&mut client, mariadb, database).await {
        assert!(Instant::now() < deadline, "{} is not mirrored: {reason}", node.site());
        sleep(AGAIN).await;
    }
    let (claimed, now) = (checkpoint(mariadb, database).0, heads(&mut client).await);
    assert!(now.covers(&claimed), "the checkpoint claims {claimed}, the node has {now}");
    for (key, row) in stored(&mut client, "t").await {
        let origin: Vec<u8> = (0..16)
            .map(|at| u8::from_str_radix(&row.origin[at * 2..at * 2 + 2], 16).unwrap())
            .collect();
        let origin = Origin::from_bytes(origin.try_into().unwrap());
        let named = claimed.get(origin).bits();
        assert!(row.hlc.parse::<u64>().unwrap() <= named, "{key} is above the checkpoint");
    }
    claimed
}

/// Whether both have the same rows at this moment, and what keeps them from it.
async fn compare(client: &mut Client, mariadb: &MariaDb, database: &str) -> Result<(), String> {
    let status = client.status().await.map_err(|error| error.to_string())?;
    let mirror = status.mirror.expect("it has one");
    if !mirror.applying || mirror.behind_rows > 0 {
        return Err(format!("{mirror:?}"));
    }
    let (stored, there) = (stored(client, "t").await, mirrored(mariadb, database, "t"));
    let keys = stored.keys().chain(there.keys());
    match keys.into_iter().find(|key| stored.get(*key) != there.get(*key)) {
        None => Ok(()),
        Some(key) => Err(format!("{key}: {:?} and {:?}", stored.get(key), there.get(key))),
    }
}
