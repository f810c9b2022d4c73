//! Whether two live nodes have the same rows: found while both take writes, and put right.

mod common;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{
    proxy::Proxy,
    site::{Site, put, table, until},
};
use lastword::{
    model::{Body, BodyParts, Context, Heads, Hlc, Key, Origin, Version},
    node::{
        Answering, Change, Mutation, Node, NodeConfig, Patience, SystemClock, Verified,
        VerifyError, VerifyOptions, VerifyProgress, WallClock as _,
    },
    protocol::{
        compare::{Answer, Ask},
        ranges::Position,
        verdict::{Side, Wrong},
    },
    store::{STORE_FILE, Store, StoreConfig},
};
use redb::{Database, TableDefinition};
use tokio::{net::TcpListener, sync::watch};

type Space = TableDefinition<'static, &'static [u8], &'static [u8]>;
const ROWS: Space = TableDefinition::new("rows");
const CHANGES: Space = TableDefinition::new("changes");
const TABLES: Space = TableDefinition::new("tables");

fn options(peer: &str) -> VerifyOptions {
    VerifyOptions { peer: peer.to_owned(), repair: false, prefer: None }
}

async fn verify(site: &Site, options: &VerifyOptions) -> Result<Verified, VerifyError> {
    let (progress, _) = watch::channel(VerifyProgress::default());
    site.node.verify(options, &progress).await
}

async fn connected(a: &Site, b: &Site) {
    until("the link", || a.links() > 0 && b.links() > 0).await;
}

/// Both have what the other has written.
async fn level(a: &Site, b: &Site) {
    until("equal rows", || {
        let heads = |site: &Site, of: &Site| site.node.heads().get(of.node.origin());
        heads(a, b) > Hlc::ZERO && heads(b, a) > Hlc::ZERO && a.rows() == b.rows()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_sites_are_equal_while_both_are_written_to() {
    let b = Site::start("nyc", &[]).await;
    let a = Site::start("fra", &[b.address]).await;
    for chunk in 0..4 {
        let rows = (0..1_000).map(|n| put(&format!("old{:05}", chunk * 1_000 + n), "v"));
        a.node.write(rows.collect()).await.unwrap();
    }
    // Each has heard of the other: before that there is no time up to which both have all.
    level(&a, &b).await;
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let mut writers = Vec::new();
    for (node, salt) in [(a.node.clone(), 7u64), (b.node.clone(), 11)] {
        let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
        writers.push(tokio::spawn(async move {
            let mut n = salt;
            while !stop.load(Ordering::Relaxed) {
                // The same few hundred keys at both sides: conflicts, deletes, rows that expire.
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(salt);
                let key = Key::new(format!("hot{:03}", (n >> 33) % 300)).unwrap();
                let ttl = (n >> 20).is_multiple_of(5).then_some(Duration::from_millis(50));
                let change = match (n >> 40) % 4 {
                    0 => Change::Delete { key },
                    _ => Change::Put { key, value: n.to_string().into(), ttl },
                };
                node.write(vec![Mutation { table: table(), change }]).await.unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for _ in 0..5 {
        for (site, peer) in [(&a, "nyc"), (&b, "fra")] {
            let (before, before_ms) = (written.load(Ordering::Relaxed), site.node.now_ms());
            let verified = verify(site, &options(peer)).await.unwrap();
            assert_eq!((verified.differing, verified.unjudged), (0, 0), "{verified:?}");
            assert!(verified.rows >= 4_000 && verified.bytes > 1_000, "{verified:?}");
            let through_ms = verified.through.ms();
            assert!(through_ms + 3_000 > before_ms, "{} ms old", before_ms - through_ms);
            assert!(through_ms <= site.node.now_ms());
            until("writes go on", || written.load(Ordering::Relaxed) > before).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    level(&a, &b).await;
    let quiet = verify(&a, &options("nyc")).await.unwrap();
    assert_eq!((quiet.differing, quiet.in_flux), (0, 0), "{quiet:?}");
    a.stop().await;
    b.stop().await;
}

// ---- divergence, injected underneath the store ------------------------------------------------

fn compact(data: &Path) {
    let config = StoreConfig::new(Origin::from_bytes([0xee; 16]), 1);
    Store::compact(data, &config, |_, _| ()).unwrap();
}

fn index_key(body: &[u8]) -> Vec<u8> {
    let version = Body::version_in(body).unwrap();
    [&version.origin.as_bytes()[..], &version.hlc.bits().to_be_bytes()].concat()
}

fn body(origin: Origin, hlc: u64, value: &str) -> Vec<u8> {
    let parts = BodyParts {
        version: Version { hlc: Hlc::from_bits(hlc), origin },
        seen: Hlc::ZERO,
        context: &Context::new(),
        expires_at_ms: None,
        value: Some(value.as_bytes()),
    };
    Body::new(&parts).bytes().to_vec()
}

/// Changes rows of a stopped node behind its back: `change` gets the body that stands under a key and
/// gives the one to put there, each `None` for no row.
fn inject(data: &Path, changes: &BTreeMap<String, Harm>, origin: Origin) {
    // All rows are in one file then.
    compact(data);
    let database = Database::open(data.join(STORE_FILE)).unwrap();
    let write = database.begin_write().unwrap();
    {
        let tables = write.open_table(TABLES).unwrap();
        let mut rows = write.open_table(ROWS).unwrap();
        let mut index = write.open_table(CHANGES).unwrap();
        let id = redb::ReadableTable::iter(&tables)
            .unwrap()
            .map(|entry| entry.unwrap())
            .find(|(_, name)| name.value() == b"t")
            .map(|(id, _)| id.value().to_vec())
            .unwrap();
        // Older than any site, and younger than what the conflict journal forgets.
        let hour_ago = Hlc::at_ms(SystemClock.now_ms() - 3_600_000).bits();
        for (at, (key, change)) in (hour_ago..).zip(changes) {
            let place = [&id[..], key.as_bytes()].concat();
            let before = rows.remove(&place[..]).unwrap().map(|body| body.value().to_vec());
            if let Some(before) = &before {
                index.remove(&index_key(before)[..]).unwrap().unwrap();
            }
            let after = match change {
                Harm::Lose => None,
                // Stamps so low that every site has incorporated them.
                Harm::Extra | Harm::Older => Some(body(origin, at, "of nyc alone")),
                Harm::Alter => before.map(|mut body| {
                    *body.last_mut().unwrap() ^= 1;
                    body
                }),
                Harm::Damage => before.map(|mut body| {
                    body[0] = 0xee;
                    body
                }),
            };
            if let Some(after) = after {
                index.insert(&index_key(&after)[..], &place[..]).unwrap();
                rows.insert(&place[..], &after[..]).unwrap();
            }
        }
    }
    write.commit().unwrap();
}

/// What is done to one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Lose,
    Extra,
    Older,
    Alter,
    Damage,
}

impl Harm {
    /// As the other side sees it.
    fn wrong(self) -> Wrong {
        match self {
            Harm::Lose => Wrong::OnlyHere,
            Harm::Extra => Wrong::OnlyThere,
            Harm::Older => Wrong::NewerHere,
            Harm::Alter | Harm::Damage => Wrong::Unequal,
        }
    }
}

/// 100 rows lost, extra and changed, in various ways.
fn hundred_changes() -> BTreeMap<String, Harm> {
    let kinds = [Harm::Lose, Harm::Extra, Harm::Alter, Harm::Damage, Harm::Older];
    let change = |n: usize| match kinds[n % 5] {
        Harm::Extra => (format!("extra{n:05}"), Harm::Extra),
        kind => (format!("k{:05}", n * 17), kind),
    };
    (0..100).map(change).collect()
}

/// Two sites with 2,000 rows of which 100 were changed at the second behind its back; the first has a
/// third one beside it.
async fn diverged() -> (Site, Site, Site, BTreeMap<String, Harm>) {
    let b = Site::start("nyc", &[]).await;
    let b_at: SocketAddr = b.address;
    let a = Site::start("fra", &[b_at]).await;
    let c = Site::start("sin", &[a.address]).await;
    for chunk in 0..2 {
        let rows = (0..1_000).map(|n| put(&format!("k{:05}", chunk * 1_000 + n), "value"));
        a.node.write(rows.collect()).await.unwrap();
    }
    // Rows of both: heads name both.
    b.put("of b", "v").await;
    level(&a, &b).await;
    level(&a, &c).await;
    let origin = b.node.origin();
    let data = b.stop().await;
    let changes = hundred_changes();
    inject(data.path(), &changes, origin);
    let listener = TcpListener::bind(b_at).await.unwrap();
    let b = Site::start_on("nyc", listener, &[], data).await;
    until("the link", || a.links() == 2 && b.links() == 1).await;
    (a, b, c, changes)
}

fn found(verified: &Verified) -> BTreeMap<String, Wrong> {
    let text = |key: &Key| String::from_utf8(key.as_slice().to_vec()).unwrap();
    verified.differences.iter().map(|place| (text(&place.key), place.wrong)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_rows_that_differ_are_found_and_put_right_everywhere() {
    let (a, b, c, changes) = diverged().await;
    let expected: BTreeMap<_, _> =
        changes.iter().map(|(key, change)| (key.clone(), change.wrong())).collect();
    let verified = verify(&a, &options("nyc")).await.unwrap();
    assert_eq!((verified.differing, verified.repaired), (100, 0));
    assert_eq!(found(&verified), expected);
    for place in &verified.differences {
        let damaged = place.there.as_ref().is_some_and(|state| state.damaged);
        let key = std::str::from_utf8(place.key.as_slice()).unwrap();
        assert_eq!(damaged, changes[key] == Harm::Damage, "{place:?}");
        assert_eq!(place.undecided, None);
    }
    // From the other side it looks the other way round.
    let mirrored = verify(&b, &options("fra")).await.unwrap();
    assert_eq!(mirrored.differing, 100);
    let kinds = |wrong| found(&mirrored).values().filter(|found| **found == wrong).count();
    assert_eq!((kinds(Wrong::OnlyThere), kinds(Wrong::OnlyHere)), (20, 20));
    assert_eq!((kinds(Wrong::NewerThere), kinds(Wrong::Unequal)), (20, 40));

    // What one can tell is put right; of one write with two values one cannot.
    let repair = VerifyOptions { repair: true, ..options("nyc") };
    let verified = verify(&a, &repair).await.unwrap();
    assert_eq!((verified.differing, verified.repaired), (20, 80), "{verified:?}");
    for place in &verified.differences {
        let key = std::str::from_utf8(place.key.as_slice()).unwrap();
        assert_eq!(changes[key], Harm::Alter);
        assert!(place.undecided.as_ref().unwrap().contains("--prefer"), "{place:?}");
    }
    let prefer = VerifyOptions { prefer: Some(Side::Here), ..repair };
    let verified = verify(&a, &prefer).await.unwrap();
    assert_eq!((verified.differing, verified.repaired), (0, 20), "{verified:?}");

    level(&a, &b).await;
    level(&a, &c).await;
    for site in [&a, &b, &c] {
        for (key, change) in &changes {
            let value = match change {
                Harm::Extra => "of nyc alone",
                _ => "value",
            };
            assert_eq!(site.get(key).as_deref(), Some(value), "{key} {change:?}");
        }
        assert_eq!(site.rows().len(), 2_000 + 20 + 1);
    }
    // What lost against a repair without its writer having been seen is kept where it stood.
    let lost = b.node.snapshot().conflicts().unwrap();
    let lost: Vec<_> = lost.iter().map(|(_, row)| row.key.as_slice().to_vec()).collect();
    let older = changes.iter().filter(|(_, change)| **change == Harm::Older);
    let mut older: Vec<_> = older.map(|(key, _)| key.as_bytes().to_vec()).collect();
    older.retain(|key| !lost.contains(key));
    assert!(older.is_empty() && lost.len() == 20, "{older:?}, {} lost", lost.len());
    for (site, peer) in [(&a, "nyc"), (&a, "sin"), (&b, "fra"), (&c, "fra")] {
        assert_eq!(verify(site, &options(peer)).await.unwrap().differing, 0);
    }
    for site in [a, b, c] {
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_side_with_the_wrong_rows_puts_them_right_as_well() {
    let (a, b, c, changes) = diverged().await;
    let prefer = VerifyOptions { repair: true, prefer: Some(Side::There), ..options("fra") };
    let verified = verify(&b, &prefer).await.unwrap();
    assert_eq!((verified.differing, verified.repaired), (0, 100), "{verified:?}");
    level(&a, &b).await;
    level(&a, &c).await;
    for (key, change) in changes {
        let value = if change == Harm::Extra { "of nyc alone" } else { "value" };
        assert_eq!(b.get(&key).as_deref(), Some(value), "{key}");
    }
    for site in [a, b, c] {
        site.stop().await;
    }
}

/// Clients write to the very rows that are put right.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_clients_write_during_a_repair_is_not_lost() {
    let (a, b, c, changes) = diverged().await;
    let (of_a, of_b): (Vec<_>, Vec<_>) =
        changes.keys().enumerate().partition(|(at, _)| at.is_multiple_of(2));
    let write_all = async |site: &Site, keys: &[(usize, &String)], value: &str| {
        for (_, key) in keys {
            site.put(key, value).await;
        }
    };
    let prefer = VerifyOptions { repair: true, prefer: Some(Side::Here), ..options("nyc") };
    let (verified, (), ()) = tokio::join!(
        verify(&a, &prefer),
        write_all(&a, &of_a, "new at fra"),
        write_all(&b, &of_b, "new at nyc")
    );
    let verified = verified.unwrap();
    assert_eq!(verified.differing, 0, "{verified:?}");
    level(&a, &b).await;
    level(&a, &c).await;
    assert_eq!(verify(&a, &options("nyc")).await.unwrap().differing, 0);
    for (_, key) in of_a {
        assert_eq!(b.get(key).as_deref(), Some("new at fra"), "{key}");
    }
    // A write that the repairing node could not see may lose against the repair; then it is kept.
    let mut kept = Vec::new();
    for site in [&a, &b, &c] {
        for (_, row) in site.node.snapshot().conflicts().unwrap() {
            if row.body.value().is_some_and(|value| value == "new at nyc") {
                kept.push(row.key.as_slice().to_vec());
            }
        }
    }
    for (_, key) in of_b {
        let stands = a.get(key).as_deref() == Some("new at nyc");
        assert!(stands || kept.contains(&key.as_bytes().to_vec()), "{key}: {:?}", a.get(key));
    }
    for site in [a, b, c] {
        site.stop().await;
    }
}

// ---- the answering side ------------------------------------------------------------------------

#[tokio::test]
async fn an_answer_is_of_one_snapshot_that_is_let_go_in_time() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::open(NodeConfig::new(data.path(), "fra")).await.unwrap();
    let large = "v".repeat(600 << 10);
    node.write(vec![put("a", &large), put("b", &large), put("c", "small")]).await.unwrap();
    let mut answering = Answering::new(&node, Patience::default());
    let begun = answering.answer(1, Ask::Begin((*node.heads()).clone())).await;
    assert_eq!(begun, Some(Answer::Begun { heads: (*node.heads()).clone(), floor: Heads::new() }));
    node.write(vec![put("c", "changed since")]).await.unwrap();

    let position = |key: &str| Position::of_row(&table(), key.as_bytes());
    let rows = |keys: &[&str]| Ask::Rows(keys.iter().map(|key| position(key)).collect());
    let Some(Answer::Bodies(bodies)) = answering.answer(1, rows(&["c", "none"])).await else {
        panic!("no bodies");
    };
    let value = |body: &Option<bytes::Bytes>| Body::decode(body.clone()?).unwrap().value();
    assert_eq!(bodies.iter().map(value).collect::<Vec<_>>(), [Some("small".into()), None]);
    // What does not fit is asked for again.
    let Some(Answer::Bodies(bodies)) = answering.answer(1, rows(&["a", "b", "c"])).await else {
        panic!("no bodies");
    };
    assert_eq!(bodies.len(), 1);

    // Another comparison has no snapshot here, and its end ends only itself.
    let gone = |answer: Option<Answer>| matches!(answer, Some(Answer::Refused(_)));
    assert!(gone(answering.answer(2, rows(&["c"])).await));
    assert_eq!(answering.answer(2, Ask::End).await, None);
    assert!(!gone(answering.answer(1, rows(&["c"])).await));
    assert_eq!(answering.answer(1, Ask::End).await, None);
    assert!(gone(answering.answer(1, rows(&["c"])).await));

    let far: Heads = [(Origin::from_bytes([9; 16]), Hlc::MAX)].into_iter().collect();
    let short = Duration::from_millis(20);
    let mut answering =
        Answering::new(&node, Patience { snapshot_age_max: short, catch_up_max: short });
    // Who is behind compares all the same, after a while.
    assert!(matches!(answering.answer(3, Ask::Begin(far)).await, Some(Answer::Begun { .. })));
    answering.expire().await;
    assert!(gone(answering.answer(3, rows(&["c"])).await));
    node.shutdown().await;
}

// ---- peers that cannot be asked ---------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_compared_is_told_why() {
    let b = Site::start("nyc", &[]).await;
    let line = Proxy::start(b.address);
    let a = Site::start("fra", &[line.address()]).await;
    connected(&a, &b).await;
    let error = |site: &str| {
        let (a, options) = (&a, options(site));
        async move { verify(a, &options).await.unwrap_err() }
    };
    let unknown = error("syd").await;
    assert!(matches!(unknown, VerifyError::UnknownPeer { .. }));
    assert_eq!(
        unknown.to_string(),
        "peer: no site \"syd\" is a peer of this node; its peers are: nyc"
    );
    assert!(matches!(error("fra").await, VerifyError::Itself(_)));

    // The line goes dead in the middle of a comparison.
    line.freeze();
    let (lost, busy) = tokio::join!(error("nyc"), async {
        tokio::task::yield_now().await;
        error("nyc").await
    });
    assert!(matches!(lost, VerifyError::LinkLost(_)), "{lost}");
    assert!(matches!(busy, VerifyError::Busy(_)), "{busy}");
    until("the cut to be noticed", || a.links() == 0).await;
    let down = error("nyc").await;
    assert!(matches!(down, VerifyError::NotConnected { .. }), "{down}");
    assert!(down.to_string().starts_with("peer: nyc is not connected ("), "{down}");
    line.heal();
    connected(&a, &b).await;
    assert_eq!(verify(&a, &options("nyc")).await.unwrap().differing, 0);
    a.stop().await;
    b.stop().await;
}

// ---- the command ------------------------------------------------------------------------------

async fn lastword(arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_lastword"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_command_prints_what_differs_and_exits_accordingly() {
    let (a, b, c, changes) = diverged().await;
    let url = a.url();
    let output = lastword(&["verify", "--peer", "nyc", "--json", "--server", &url]).await;
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["equal"], &report["differing"]), (&false.into(), &100.into()));
    let differences = report["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 100);
    let lost = differences.iter().find(|place| place["kind"] == "only_here").unwrap();
    assert_eq!(changes[lost["key"].as_str().unwrap()], Harm::Lose);
    assert_eq!((&lost["there"], &lost["here"]["value_bytes"]), (&().into(), &5.into()));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(complaint, "error: 100 rows differ from nyc: --repair puts them right\n");

    let repair = ["verify", "--peer", "nyc", "--repair", "--prefer", "here", "--server", &url];
    let output = lastword(&repair).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("equal, 100 repaired: every write up to 20"), "{text}");
    assert_eq!(output.status.code(), Some(0));

    let output = lastword(&["verify", "--peer", "syd", "--server", &url]).await;
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint.starts_with("error: peer: no site \"syd\" is a peer"), "{complaint}");
    for site in [a, b, c] {
        site.stop().await;
    }
}
