//! Both sites write the same keys at once: do they end with the same rows?

use std::time::Duration;

use ::lastword::client::Client;
use anyhow::Context;
use bytes::Bytes;
use mysql_async::{Conn, prelude::Queryable};
use tokio::time::timeout;

use super::{Bench, Case, LASTWORD, MARIADB_PAIR, Outcome};
use crate::{
    load::{OPERATION_MAX, key},
    measure::{Bound, Figure, Goal, Sample, interleave},
    process::settle,
    systems::{
        lastword::{self, Node, TABLE, all_across},
        mariadb::{self, MariaDb, REPLACE, SELECT, slave_status},
    },
};

const KEYS: u64 = 100;
const EVEN_MAX: Duration = Duration::from_secs(60);

const DIFFER: Figure = Figure {
    key: "keys_that_differ",
    label: "keys of 100 that differ for ever",
    more_is_better: false,
};

/// The same keys at both sites.
pub(super) const CONTESTED: Case = Case {
    name: "contested",
    title: "Both sites write the same 100 keys at once",
    about: "Key by key, one client at each site writes a value of its own at the same moment. When \
            both sites are quiet and each has all that the other one wrote, their rows are \
            compared.",
    figures: &[DIFFER],
    contenders: &[LASTWORD, MARIADB_PAIR],
    goals: &[Goal { figure: DIFFER, ours: LASTWORD, peers: &[], bound: Bound::AtMost(0.0) }],
    run: |bench| Box::pin(run(bench)),
};

async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let nodes = lastword::start_pair(&bench.place, [None, None]).await?;
    let masters = mariadb::start_pair(&bench.place, &[]).await?;
    let mut round = 0;
    let runs = interleave(bench.rounds, CONTESTED.contenders, async |contender| {
        round += 1;
        let differ = if contender == LASTWORD {
            contest_nodes(&nodes, round).await?
        } else {
            contest_masters(&masters, round).await?
        };
        Ok(Sample::default().with(DIFFER, differ as f64))
    })
    .await?;

    let mut notes = Vec::new();
    for (number, master) in masters.iter().enumerate() {
        let status = slave_status(&mut master.conn().await?).await?;
        notes.push(format!(
            "MariaDB {} afterwards: Slave_IO_Running {}, Slave_SQL_Running {}, \
             Seconds_Behind_Master {}: it does not know.",
            number + 1,
            status.io,
            status.sql,
            status.behind.map_or("NULL".to_owned(), |seconds| seconds.to_string())
        ));
    }
    for node in &nodes {
        let status = node.status().await?.node.unwrap_or_default();
        notes.push(format!(
            "lastword at {} recorded {} writes that lost, with their values.",
            status.site, status.conflicts_recorded
        ));
    }
    Ok(Outcome { runs, notes })
}

/// A value that tells site and round.
fn value(site: usize, round: u64) -> Bytes {
    format!("written at site {site} in round {round}").into()
}

async fn contest_nodes(nodes: &[Node; 2], round: u64) -> anyhow::Result<usize> {
    let mut clients = [nodes[0].client()?, nodes[1].client()?];
    let [here, there] = &mut clients;
    for n in 0..KEYS {
        let both = async {
            tokio::try_join!(
                here.put(TABLE, key(n), value(1, round), None),
                there.put(TABLE, key(n), value(2, round), None)
            )
        };
        timeout(OPERATION_MAX, both).await.context("a write hangs")??;
    }
    settle(&[nodes[0].cpu()?, nodes[1].cpu()?]).await?;
    all_across(&nodes[0], &nodes[1], EVEN_MAX).await?;
    all_across(&nodes[1], &nodes[0], EVEN_MAX).await?;
    let mut differ = 0;
    for n in 0..KEYS {
        let [here, there] = &mut clients;
        differ += usize::from(value_at(here, n).await? != value_at(there, n).await?);
    }
    Ok(differ)
}

async fn value_at(client: &mut Client, n: u64) -> anyhow::Result<Bytes> {
    // A session of its own: what this site has, not what this client has seen.
    client.set_session(Default::default());
    Ok(client.get(TABLE, key(n)).await?.context("a row is missing")?.value)
}

async fn contest_masters(masters: &[MariaDb; 2], round: u64) -> anyhow::Result<usize> {
    let mut conns = [masters[0].conn().await?, masters[1].conn().await?];
    let [here, there] = &mut conns;
    for n in 0..KEYS {
        let key = key(n);
        let (first, second) = (value(1, round), value(2, round));
        let both = async {
            tokio::try_join!(
                here.exec_drop(REPLACE, (&key[..], &first[..])),
                there.exec_drop(REPLACE, (&key[..], &second[..]))
            )
        };
        timeout(OPERATION_MAX, both).await.context("a write hangs")??;
    }
    settle(&[masters[0].cpu()?, masters[1].cpu()?]).await?;
    masters[1].has_all_of(&masters[0], EVEN_MAX).await?;
    masters[0].has_all_of(&masters[1], EVEN_MAX).await?;
    let mut differ = 0;
    for n in 0..KEYS {
        let [here, there] = &mut conns;
        differ += usize::from(value_of(here, n).await? != value_of(there, n).await?);
    }
    Ok(differ)
}

async fn value_of(conn: &mut Conn, n: u64) -> anyhow::Result<Vec<u8>> {
    let value = conn.exec_first(SELECT, (&key(n)[..],)).await?;
    value.context("a row is missing")
}
