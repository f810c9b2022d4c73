//! Deltas that are carried by hand, through the API: what is merged, what is claimed, what is refused.

use lastword::{
    model::{Heads, Hlc, Origin, Row},
    wire::{
        delta::DeltaRow,
        proto::{
            self, ImportRequest, ImportResponse, export_request::Since, export_response,
            import_request::Part,
        },
    },
};
use tokio_stream::StreamExt;
use tonic::{Code, Status};

use crate::served::{START_MS, Served, peer, peer_heads, peer_row, refused, until};

fn heads_out(heads: &Heads) -> Vec<proto::OriginHead> {
    let out = |(origin, hlc): (Origin, Hlc)| proto::OriginHead {
        origin: origin.as_bytes().to_vec().into(),
        hlc: hlc.bits(),
    };
    heads.iter().map(out).collect()
}

/// Of a file of the peer's, from nothing to its heads 10 s after the start.
fn header() -> proto::DeltaFileHeader {
    proto::DeltaFileHeader {
        cluster: "lastword".into(),
        site: "nyc".into(),
        origin: peer().as_bytes().to_vec().into(),
        snapshot_heads: heads_out(&peer_heads(10_000)),
        created_ms: START_MS,
        ..Default::default()
    }
}

fn first(header: proto::DeltaFileHeader) -> ImportRequest {
    ImportRequest { part: Some(Part::Header(header)), last: false }
}

fn rows(rows: Vec<Row>, last: bool) -> ImportRequest {
    let rows = rows.into_iter().map(DeltaRow::from).collect();
    ImportRequest { part: Some(Part::Rows(proto::DeltaFileRows { rows })), last }
}

async fn import(served: &Served, parts: Vec<ImportRequest>) -> Result<ImportResponse, Status> {
    let answer = served.admin().import(tokio_stream::iter(parts)).await;
    answer.map(tonic::Response::into_inner)
}

fn value(key: &'static str, ms: u64) -> Row {
    peer_row(key, Some("theirs"), ms)
}

#[tokio::test]
async fn nothing_is_claimed_before_the_last_part() {
    let served = Served::new().await;
    let parts =
        vec![first(header()), rows(vec![value("a", 1)], false), rows(vec![value("b", 2)], false)];
    let broken = import(&served, parts).await;
    refused(broken, Code::Aborted, "import: it ended before its last part");
    // What came stays, once it is committed.
    until("its rows", async || served.get("t", "b").await.is_some()).await;
    assert_eq!(served.node.heads().get(peer()), Hlc::ZERO);

    let parts =
        vec![first(header()), rows(vec![value("a", 1)], false), rows(vec![value("b", 2)], true)];
    let answer = import(&served, parts.clone()).await.unwrap();
    assert_eq!((answer.rows_received, answer.rows_stored, answer.claimed), (2, 0, true));
    assert_eq!(served.node.heads().get(peer()), Hlc::at_ms(START_MS + 10_000));
    assert_eq!(answer.heads, served.node.heads().to_text());
    let commits = |status: proto::StatusResponse| status.node.unwrap().commits;
    let status =
        async || served.admin().status(proto::StatusRequest {}).await.unwrap().into_inner();
    let before = commits(status().await);
    import(&served, parts).await.unwrap();
    assert_eq!(commits(status().await), before, "the second time costs no commit");
}

#[tokio::test]
async fn rows_of_a_clock_that_runs_ahead_keep_a_file_from_being_claimed() {
    let served = Served::new().await;
    let parts =
        || vec![first(header()), rows(vec![value("near", 9_000), value("far", 60_000)], true)];
    let answer = import(&served, parts()).await.unwrap();
    assert_eq!((answer.claimed, answer.rows_held_back, answer.rows_stored), (false, 1, 1));
    assert!((49_000..=51_000).contains(&answer.held_back_ms), "{answer:?}");
    assert!(served.get("t", "near").await.is_some() && served.get("t", "far").await.is_none());
    assert_eq!(served.node.heads().get(peer()), Hlc::ZERO);
    served.clock.set(START_MS + 60_000);
    let answer = import(&served, parts()).await.unwrap();
    assert_eq!((answer.claimed, answer.rows_held_back), (true, 0));
    assert!(served.get("t", "far").await.is_some());
}

#[tokio::test]
async fn a_file_that_does_not_fit_is_refused_before_anything_is_merged() {
    let served = Served::new().await;
    let refuses = async |header: proto::DeltaFileHeader, begins: &str| {
        let answer = import(&served, vec![first(header), rows(vec![value("k", 1)], true)]).await;
        refused(answer, Code::FailedPrecondition, begins);
        assert!(served.get("t", "k").await.is_none());
    };
    let since = heads_out(&peer_heads(5));
    refuses(proto::DeltaFileHeader { since: since.clone(), ..header() }, "file: there is a gap")
        .await;
    // The floor of a sender that purges.
    refuses(proto::DeltaFileHeader { floor: since, ..header() }, "file: site nyc has purged").await;
    refuses(proto::DeltaFileHeader { cluster: "blog".into(), ..header() }, "file: it is from")
        .await;
    let own = served.node.origin();
    let of_own = proto::DeltaFileHeader { origin: own.as_bytes().to_vec().into(), ..header() };
    refuses(of_own, "file: this node wrote it").await;
    // It knows more of this store than this store does.
    let ahead: Heads = [(own, Hlc::at_ms(START_MS + 3_600_000))].into_iter().collect();
    let set_back = proto::DeltaFileHeader { snapshot_heads: heads_out(&ahead), ..header() };
    refuses(set_back, "file: the peer has writes of this store").await;

    let wrong = import(&served, vec![rows(vec![value("k", 1)], true)]).await;
    refused(wrong, Code::InvalidArgument, "part: the first must be the header");
    let twice = import(&served, vec![first(header()), first(header())]).await;
    refused(twice, Code::InvalidArgument, "part: a second header");
    let short = proto::DeltaFileHeader { origin: vec![1; 15].into(), ..header() };
    refused(
        import(&served, vec![first(short)]).await,
        Code::InvalidArgument,
        "file: peer: an origin",
    );
}

/// One durable moment: what is written while a slow client reads is not in it, and the heads say so.
#[tokio::test]
async fn an_export_is_one_moment_from_the_heads_that_were_asked() {
    let served = Served::new().await;
    let value = vec![b'x'; 100_000];
    for n in 0..40 {
        served.put("t", format!("k{n:02}"), value.clone()).await;
    }
    let heads_then = served.node.heads();
    let since = Some(Since::Heads(peer_heads(7).to_text()));
    let mut parts =
        served.admin().export(proto::ExportRequest { since }).await.unwrap().into_inner();
    let first = parts.next().await.unwrap().unwrap();
    let Some(export_response::Part::Header(header)) = first.part else { panic!("{first:?}") };
    assert_eq!(header.since, heads_out(&peer_heads(7)));
    assert_eq!((header.site.as_str(), header.floor.len()), ("fra", 0));
    served.put("t", "later", "v").await;
    served.put("t", "k00", "later").await;
    let (mut keys, mut last, mut remaining) = (Vec::new(), false, u64::MAX);
    while let Some(part) = parts.next().await {
        let part = part.unwrap();
        assert!(!last && part.remaining_rows < remaining);
        (last, remaining) = (part.last, part.remaining_rows);
        let Some(export_response::Part::Rows(rows)) = part.part else { panic!("rows") };
        keys.extend(rows.rows.into_iter().filter(|row| row.table == "t").map(|row| row.key));
    }
    assert!(last && remaining == 0);
    assert_eq!(keys.len(), 40);
    assert!(!keys.contains(&"later".into()));
    assert_eq!(header.snapshot_heads, heads_out(&heads_then));
}
