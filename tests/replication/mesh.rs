//! Nodes that hear of a write by more than one way: what crosses which link, and how soon.

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;

use super::{Setting, Site, common::proxy::Proxy, listener, site, until};

const NODES: usize = 4;
/// Of each site, in each test.
const ROWS: u64 = 100;

/// Of each link.
fn with_heartbeat(heartbeat: Duration) -> Setting {
    let (heartbeat, silence_max) = (Some(heartbeat), Some(10 * heartbeat));
    Setting { heartbeat, silence_max, ..Setting::default() }
}

/// As a node has it.
fn usual() -> Setting {
    with_heartbeat(Duration::from_secs(1))
}

/// Far longer than a test takes: what waits for a heartbeat is seen.
fn rare() -> Setting {
    with_heartbeat(Duration::from_secs(60))
}

/// Sites of which each dials those that `dials` names by their numbers, which are smaller.
async fn sites(
    count: usize,
    setting: impl Fn() -> Setting,
    dials: impl Fn(usize) -> Vec<usize>,
) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    for n in 0..count {
        let peers: Vec<SocketAddr> = dials(n).into_iter().map(|at| sites[at].address).collect();
        sites.push(site(&format!("site{n}"), listener().await, &peers, setting()).await);
    }
    let links =
        |n: usize| dials(n).len() + (n + 1..count).filter(|m| dials(*m).contains(&n)).count();
    until("all links", || sites.iter().enumerate().all(|(n, site)| site.links() == links(n))).await;
    // Each knows each: the rows of the member list have gone round.
    until("all names", || {
        let named = |by: &Site, site: &Site| by.node.site_of(site.node.origin()).is_some();
        sites.iter().all(|by| sites.iter().all(|site| named(by, site)))
    })
    .await;
    sites
}

async fn mesh() -> Vec<Site> {
    sites(NODES, usual, |n| (0..n).collect()).await
}

/// The rows sent over each link, by sender and receiver.
fn sent(sites: &[Site]) -> Vec<Vec<u64>> {
    let to = |from: &Site, to: &Site| {
        let peers = from.peers();
        let peer = peers.iter().find(|peer| peer.origin == Some(to.node.origin()));
        peer.map_or(0, |peer| peer.rows_sent)
    };
    sites.iter().map(|from| sites.iter().map(|other| to(from, other)).collect()).collect()
}

async fn all_have(sites: &[Site], rows: u64) {
    until("all rows", || sites.iter().all(|site| site.rows().len() as u64 == rows)).await;
}

async fn stop(sites: Vec<Site>) {
    for site in sites {
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_mesh_a_row_goes_from_its_writer_to_each_other_site_and_no_further() {
    let sites = mesh().await;
    let before = sent(&sites);
    for (n, site) in sites.iter().enumerate() {
        for row in 0..ROWS {
            site.put(&format!("{n}-{row}"), "v").await;
        }
        all_have(&sites, (n as u64 + 1) * ROWS).await;
    }
    let after = sent(&sites);
    let rows = NODES as u64 * ROWS;
    let mut total = 0;
    for (from, to) in (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))) {
        let sent = after[from][to] - before[from][to];
        total += sent;
        if from != to {
            assert!(sent >= ROWS, "{sent} rows from {from} to {to}");
        }
    }
    let needed = rows * (NODES as u64 - 1);
    // A heartbeat passes on what its peer has not acknowledged just then: some rows of the hundred that
    // are written within less than a second. Where each site passes on all, it is three times as much.
    assert!(total <= needed + needed / 4, "{total} rows sent where {needed} were needed");
    for site in &sites {
        assert_eq!(site.rows(), sites[0].rows());
    }
    stop(sites).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_write_at_once_no_link_carries_a_row_twice() {
    let sites = mesh().await;
    let before = sent(&sites);
    for row in 0..ROWS {
        for (n, site) in sites.iter().enumerate() {
            site.put(&format!("{n}-{row}"), "v").await;
        }
    }
    let rows = NODES as u64 * ROWS;
    all_have(&sites, rows).await;
    let after = sent(&sites);
    for (from, to) in (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))) {
        // An own write takes along what its peer has not acknowledged just then; never a row twice, nor
        // one to its writer.
        let sent = after[from][to] - before[from][to];
        assert!(sent <= rows - ROWS, "{sent} rows from {from} to {to}");
        assert!(from == to || sent >= ROWS, "{sent} rows from {from} to {to}");
    }
    stop(sites).await;
}

/// Whoever hears of a row only from us does not wait for a heartbeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_passes_on_at_once() {
    let sites = sites(3, rare, |n| if n == 0 { vec![] } else { vec![0] }).await;
    let began = Instant::now();
    for row in 0..ROWS {
        sites[1].put(&format!("{row}"), "v").await;
        until("the row", || sites[2].get(&row.to_string()).is_some()).await;
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    stop(sites).await;
}

/// A link that is up and brings nothing: the row comes by another way, a heartbeat later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_link_brings_nothing_another_one_does() {
    let patient = || Setting { silence_max: Some(Duration::from_secs(300)), ..Setting::default() };
    let a = site("a", listener().await, &[], patient()).await;
    let b = site("b", listener().await, &[a.address], patient()).await;
    let line = Proxy::start(a.address);
    let c = site("c", listener().await, &[line.address(), b.address], patient()).await;
    until("all links", || [&a, &b, &c].iter().all(|site| site.links() == 2)).await;
    a.put("before", "v").await;
    until("a row by either way", || c.get("before").is_some()).await;
    line.freeze();
    for row in 0..10 {
        a.put(&format!("{row}"), "v").await;
    }
    until("the rows by the other way", || c.get("9").is_some()).await;
    assert!(c.links() == 2 && a.links() == 2, "the link that brings nothing is up");
    line.heal();
    until("equal rows", || a.rows() == c.rows()).await;
    stop(vec![a, b, c]).await;
}
