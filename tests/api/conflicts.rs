//! The conflict journal through the API: list, get, restore.

use lastword::{
    model::{Body, BodyParts, Context, Hlc, Row, Version},
    wire::proto::{self, admin_service_client::AdminServiceClient},
};
use tokio_stream::StreamExt;
use tonic::{Code, transport::Channel};

use crate::served::{START_MS, Served, delete, peer, peer_row, put, refused, ttl_ms};

async fn list(
    admin: &mut AdminServiceClient<Channel>,
    request: proto::ListConflictsRequest,
) -> Vec<proto::Conflict> {
    let mut parts = admin.list_conflicts(request).await.unwrap().into_inner();
    let mut conflicts = Vec::new();
    while let Some(part) = parts.next().await {
        conflicts.extend(part.unwrap().conflicts);
    }
    conflicts
}

fn all() -> proto::ListConflictsRequest {
    proto::ListConflictsRequest::default()
}

fn of(id: &str) -> (proto::GetConflictRequest, proto::RestoreConflictRequest) {
    (proto::GetConflictRequest { id: id.into() }, proto::RestoreConflictRequest { id: id.into() })
}

fn keys(conflicts: &[proto::Conflict]) -> Vec<&[u8]> {
    conflicts.iter().map(|conflict| conflict.key.as_ref()).collect()
}

#[tokio::test]
async fn a_lost_write_is_listed_shown_and_restored_for_everyone_to_see() {
    let served = Served::new().await;
    served.put("t", "k", "ours").await;
    served.merge(vec![peer_row("k", Some("theirs"), 1_000)], None).await;
    let mut admin = served.admin();
    let [conflict] = &list(&mut admin, all()).await[..] else { panic!("one conflict") };
    let loser = conflict.loser.clone().unwrap();
    assert_eq!((conflict.table.as_str(), conflict.key.as_ref()), ("t", &b"k"[..]));
    assert_eq!((loser.value.as_ref(), loser.site.as_str()), (&b"ours"[..], "fra"));
    assert_eq!(loser.write_time.unwrap().to_string(), "2025-10-09T08:53:20Z");
    assert!(!loser.deleted && loser.expire_time.is_none());
    let winner = Version { hlc: Hlc::at_ms(START_MS + 1_000), origin: peer() };
    assert_eq!(conflict.winner, Some(winner.into()));
    assert_eq!(conflict.winner_site, "", "not met");
    let version = loser.version.unwrap();
    assert_eq!(conflict.id, format!("{}@{}", version.hlc, served.node.origin()));

    let (get, restore) = of(&conflict.id.to_uppercase());
    let found = admin.get_conflict(get.clone()).await.unwrap().into_inner();
    assert_eq!(found.conflict.as_ref(), Some(conflict));
    assert_eq!(found.standing.unwrap().value, "theirs");

    let restored = admin.restore_conflict(restore).await.unwrap().into_inner();
    let row = served.get("t", "k").await.unwrap();
    assert_eq!((row.value.as_ref(), &row.version), (&b"ours"[..], &restored.version));
    assert!(row.version.unwrap().hlc > winner.hlc.bits(), "a new write, after what it replaces");
    // The new write has seen both: it makes no conflict where it meets them.
    served.merge(vec![peer_row("k", Some("theirs"), 1_000)], None).await;
    let status = admin.status(proto::StatusRequest {}).await.unwrap().into_inner();
    let node = status.node.unwrap();
    assert_eq!((node.conflicts_recorded, node.conflicts_kept), (1, 1));
    assert!(node.conflicts_kept_bytes > 0);
    assert_eq!(node.conflicts_oldest_age_seconds, Some(0.0));
    let found = admin.get_conflict(get).await.unwrap().into_inner();
    assert_eq!(found.standing.unwrap().version, restored.version);
}

#[tokio::test]
async fn a_lost_delete_is_restored_as_a_delete_and_an_expiry_is_kept() {
    let served = Served::new().await;
    served.client.clone().delete(delete("t", "gone")).await.unwrap();
    let short = proto::PutRequest { ttl: ttl_ms(60_000), ..put("t", "short", "ours") };
    served.client.clone().put(short).await.unwrap();
    served
        .merge(
            vec![peer_row("gone", Some("theirs"), 1_000), peer_row("short", Some("theirs"), 1_001)],
            None,
        )
        .await;
    let mut admin = served.admin();
    let conflicts = list(&mut admin, proto::ListConflictsRequest { oldest_first: true, ..all() });
    let [gone, short] = &conflicts.await[..] else { panic!("two conflicts") };
    assert!(gone.loser.as_ref().unwrap().deleted);
    admin.restore_conflict(of(&gone.id).1).await.unwrap();
    assert!(served.get("t", "gone").await.is_none());

    served.clock.set(START_MS + 20_000);
    admin.restore_conflict(of(&short.id).1).await.unwrap();
    let row = served.get("t", "short").await.unwrap();
    assert_eq!(row.expire_time.unwrap().to_string(), "2025-10-09T08:54:20Z", "as it was written");
    served.clock.set(START_MS + 60_000);
    let late = admin.restore_conflict(of(&short.id).1).await;
    refused(late, Code::FailedPrecondition, "conflict: the losing row of");
}

#[tokio::test]
async fn the_list_is_filtered_ordered_and_cut() {
    let served = Served::new().await;
    for (at, key) in ["a1", "b1", "a2", "a3"].into_iter().enumerate() {
        let ms = 1_000 * at as u64;
        served.clock.set(START_MS + ms);
        served.put("t", key, "ours").await;
        served.merge(vec![peer_row(key, Some("theirs"), ms + 500)], None).await;
    }
    let mut admin = served.admin();
    assert_eq!(keys(&list(&mut admin, all()).await), [b"a3", b"a2", b"b1", b"a1"]);
    let prefixed = proto::ListConflictsRequest { prefix: "a".into(), oldest_first: true, ..all() };
    assert_eq!(keys(&list(&mut admin, prefixed.clone()).await), [b"a1", b"a2", b"a3"]);
    let cut = proto::ListConflictsRequest { limit: 2, ..prefixed };
    assert_eq!(keys(&list(&mut admin, cut).await), [b"a1", b"a2"]);
    let second = Some(prost_types::Timestamp { seconds: (START_MS / 1_000) as i64 + 2, nanos: 0 });
    let since = proto::ListConflictsRequest { since_time: second, ..all() };
    assert_eq!(keys(&list(&mut admin, since).await), [b"a3", b"a2"]);
    let other = proto::ListConflictsRequest { table: "other".into(), ..all() };
    assert!(list(&mut admin, other).await.is_empty());
    let wrong = proto::ListConflictsRequest { table: "_members".into(), ..all() };
    refused(admin.list_conflicts(wrong).await, Code::InvalidArgument, "table: ");
}

/// More than one message holds, at a client's pace.
#[tokio::test]
async fn a_long_list_comes_whole() {
    let served = Served::new().await;
    let row = |n: u64, by: u8, value: &[u8]| Row {
        key: lastword::model::Key::new(format!("k{n:04}")).unwrap(),
        body: Body::new(&BodyParts {
            version: Version {
                hlc: Hlc::at_ms(START_MS + n),
                origin: lastword::model::Origin::from_bytes([by; 16]),
            },
            seen: Hlc::ZERO,
            context: &Context::new(),
            expires_at_ms: None,
            value: Some(value),
        }),
        ..peer_row("k", None, 0)
    };
    let large = vec![b'x'; 4_000];
    let rows = (0..500).flat_map(|n| [row(n, 1, &large), row(n, 2, b"wins")]).collect();
    served.merge(rows, None).await;
    let mut admin = served.admin();
    let conflicts = list(&mut admin, all()).await;
    assert_eq!(conflicts.len(), 500);
    assert!(conflicts.is_sorted_by(|newer, older| newer.key > older.key));
    assert!(conflicts.iter().all(|c| c.loser.as_ref().unwrap().value == large));
}

#[tokio::test]
async fn an_unknown_id_says_how_to_list() {
    let served = Served::new().await;
    let mut admin = served.admin();
    let (get, restore) = of(&format!("77@{}", peer()));
    let answer = admin.get_conflict(get).await;
    assert!(answer.as_ref().unwrap_err().message().contains("lastword conflicts list"));
    refused(answer, Code::NotFound, "conflict: there is none with the id 77@bbbb");
    refused(admin.restore_conflict(restore).await, Code::NotFound, "conflict: there is none");
    let (get, _) = of("seventy");
    refused(admin.get_conflict(get).await, Code::InvalidArgument, "id: \"seventy\" is not");
}
