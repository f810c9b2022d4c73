//! Put, delete, insert, batch.

use std::collections::HashSet;

use lastword::{protocol::SequenceIds, wire::proto};
use proto::mutation::Mutation;
use tonic::Code;

use crate::served::{START_MS, Served, delete, insert, put, refused, ttl_ms};

#[tokio::test]
async fn a_put_replaces_the_whole_row() {
    let served = Served::new().await;
    let mut client = served.client.clone();
    let first = client.put(put("t", "k", "one")).await.unwrap().into_inner();
    let second = client.put(put("t", "k", "two")).await.unwrap().into_inner();
    assert!(second.version.as_ref().unwrap().hlc > first.version.unwrap().hlc);
    let row = served.get("t", "k").await.unwrap();
    assert_eq!((row.table.as_str(), &row.key[..], &row.value[..]), ("t", &b"k"[..], &b"two"[..]));
    assert_eq!((row.site.as_str(), row.expire_time), ("fra", None));
    assert_eq!(row.version, second.version);
    assert_eq!(row.version.unwrap().origin, &served.node.origin().as_bytes()[..]);
}

#[tokio::test]
async fn a_delete_says_whether_a_row_was_there() {
    let served = Served::new().await;
    let mut client = served.client.clone();
    served.put("t", "k", "v").await;
    assert!(client.delete(delete("t", "k")).await.unwrap().into_inner().existed);
    assert_eq!(served.get("t", "k").await, None);
    let again = client.delete(delete("t", "k")).await.unwrap().into_inner();
    assert!(!again.existed && again.version.is_some() && !again.session.is_empty());
    assert!(!client.delete(delete("t", "never")).await.unwrap().into_inner().existed);
}

#[tokio::test]
async fn a_row_with_a_ttl_is_gone_when_its_time_is_up() {
    let served = Served::new().await;
    let mut client = served.client.clone();
    let request = proto::PutRequest { ttl: ttl_ms(10_000), ..put("t", "k", "v") };
    client.put(request).await.unwrap();
    let row = served.get("t", "k").await.unwrap();
    assert_eq!(row.expire_time.unwrap().to_string(), "2025-10-09T08:53:30Z");
    served.clock.set(START_MS + 9_999);
    assert!(served.get("t", "k").await.is_some());
    served.clock.set(START_MS + 10_000);
    assert_eq!(served.get("t", "k").await, None);
    let keys = vec!["k".into()];
    let request = proto::GetManyRequest { table: "t".into(), keys, ..<_>::default() };
    assert_eq!(client.get_many(request).await.unwrap().into_inner().rows[0].row, None);
    assert!(!client.delete(delete("t", "k")).await.unwrap().into_inner().existed);
}

#[tokio::test]
async fn an_insert_makes_keys_in_order_of_time() {
    let served = Served::new().await;
    let mut client = served.client.clone();
    let mut keys = Vec::new();
    for ms in 0..20 {
        served.clock.set(START_MS + ms);
        for kind in [proto::IdKind::Unspecified, proto::IdKind::UuidV7] {
            let answer = client.insert(insert("t", kind)).await.unwrap().into_inner();
            assert!(answer.version.is_some() && !answer.session.is_empty());
            keys.push(String::from_utf8(answer.key.to_vec()).unwrap());
        }
    }
    assert!(keys.iter().all(|key| key.len() == 36 && &key[14..15] == "7"), "{keys:?}");
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 40);
    assert!(keys.windows(3).all(|keys| keys[0] < keys[2]), "{keys:?}");
    let row = served.get("t", keys[0].clone()).await.unwrap();
    assert_eq!(&row.value[..], b"v");
}

#[tokio::test]
async fn sequence_ids_are_the_site_s_own_and_skip_what_stands_there() {
    let served = Served::with(|settings| {
        settings.node.sequence = Some(SequenceIds { offset: 1, increment: 2 });
    })
    .await;
    served.put("t", "5", "by hand").await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        let answer = served.client.clone().insert(insert("t", proto::IdKind::Sequence)).await;
        ids.push(String::from_utf8(answer.unwrap().into_inner().key.to_vec()).unwrap());
    }
    assert_eq!(ids, ["1", "3", "7", "9"]);
    assert_eq!(&served.get("t", "5").await.unwrap().value[..], b"by hand");
    // Each table counts for itself, and no id comes twice.
    served.client.clone().delete(delete("t", "9")).await.unwrap();
    let sequence = || Mutation::Insert(insert("t", proto::IdKind::Sequence));
    let other = Mutation::Insert(insert("u", proto::IdKind::Sequence));
    let answer = served.batch([sequence(), other, sequence()]).await.unwrap();
    let keys: Vec<_> = answer.results.iter().map(|result| &result.key[..]).collect();
    assert_eq!(keys, [&b"11"[..], b"1", b"13"]);
}

#[tokio::test]
async fn without_a_sequence_only_uuids_are_made() {
    let served = Served::new().await;
    let answer = served.client.clone().insert(insert("t", proto::IdKind::Sequence)).await;
    refused(answer, Code::FailedPrecondition, "id_kind: this site has no sequence ids");
}

#[tokio::test]
async fn a_batch_is_applied_in_order_and_whole() {
    let served = Served::new().await;
    served.put("t", "old", "v").await;
    let answer = served
        .batch([
            Mutation::Put(put("t", "k", "first")),
            Mutation::Put(put("u", "k", "other table")),
            Mutation::Put(put("t", "k", "last")),
            Mutation::Delete(delete("t", "old")),
            Mutation::Delete(delete("t", "never")),
            Mutation::Insert(insert("t", proto::IdKind::UuidV7)),
        ])
        .await
        .unwrap();
    assert_eq!(answer.results.len(), 6);
    let existed: Vec<_> = answer.results.iter().map(|result| result.existed).collect();
    assert_eq!(existed, [false, false, true, true, false, false]);
    assert_eq!(&served.get("t", "k").await.unwrap().value[..], b"last");
    assert_eq!(&served.get("u", "k").await.unwrap().value[..], b"other table");
    assert_eq!(served.get("t", "old").await, None);
    let inserted = answer.results[5].key.clone();
    assert_eq!(&served.get("t", inserted).await.unwrap().value[..], b"v");
}

#[tokio::test]
async fn one_bad_mutation_and_nothing_is_written() {
    let served = Served::new().await;
    let good = || Mutation::Put(put("t", "k", "v"));
    let answer = served.batch([good(), Mutation::Delete(delete("t", ""))]).await;
    refused(answer, Code::InvalidArgument, "mutations[1].delete.key: 0 bytes long");
    // Refused by the store itself: no sequence is configured.
    let answer = served.batch([good(), Mutation::Insert(insert("t", proto::IdKind::Sequence))]);
    refused(answer.await, Code::FailedPrecondition, "id_kind: ");
    assert_eq!(served.get("t", "k").await, None);
    assert_eq!(served.node.status().unwrap().rows_written, 1, "the member row alone");
}

#[tokio::test]
async fn tables_are_created_by_writing_unless_that_is_off() {
    let served = Served::new().await;
    assert_eq!(served.get("unknown", "k").await, None);

    let served = Served::with(|settings| settings.node.create_tables = false).await;
    let mut client = served.client.clone();
    let message = "table: unknown does not exist";
    refused(client.put(put("unknown", "k", "v")).await, Code::NotFound, message);
    refused(client.delete(delete("unknown", "k")).await, Code::NotFound, message);
    let table = String::from("unknown");
    let get = proto::GetRequest { table: table.clone(), key: "k".into(), ..<_>::default() };
    refused(client.get(get).await, Code::NotFound, message);
    let get = proto::GetManyRequest { table: table.clone(), ..<_>::default() };
    refused(client.get_many(get).await, Code::NotFound, message);
    let scan = proto::ScanRequest { table, ..<_>::default() };
    refused(client.scan(scan).await, Code::NotFound, message);
}

#[tokio::test]
async fn a_clock_that_was_set_back_stops_writes_and_says_so() {
    let served = Served::new().await;
    served.put("t", "k", "v").await;
    served.clock.set(START_MS - 3_600_000);
    let answer = served.client.clone().put(put("t", "k", "w")).await;
    refused(answer, Code::Unavailable, "clock: this node's stamps lead its wall clock");
    assert_eq!(&served.get("t", "k").await.unwrap().value[..], b"v");
    served.clock.set(START_MS);
    served.put("t", "k", "w").await;
}

#[tokio::test]
async fn a_node_that_has_stopped_takes_no_writes() {
    let served = Served::new().await;
    served.node.shutdown().await;
    let answer = served.client.clone().put(put("t", "k", "v")).await;
    refused(answer, Code::Unavailable, "node: shutting down: retry at another node");
}
