//! At each limit a request passes; one above it is refused by name, and nothing was done.

use bytes::Bytes;
use lastword::{
    store::TABLES_MAX,
    wire::{proto, rows::EXPIRES_AT_MS_MAX},
};
use proto::mutation::Mutation;
use tonic::Code;

use crate::served::{START_MS, Served, delete, insert, put, refused, ttl_ms};

#[tokio::test]
async fn tables() {
    let served = Served::new().await;
    let mut client = served.client.clone();
    client.put(put(&"t".repeat(63), "k", "v")).await.unwrap();
    for name in [&"t".repeat(64), "", "T", "a-b", "1a"] {
        let message = format!("table: {name:?} is not a table name");
        refused(client.put(put(name, "k", "v")).await, Code::InvalidArgument, &message);
        refused(client.delete(delete(name, "k")).await, Code::InvalidArgument, &message);
    }
    // The system's tables are neither written nor read.
    let message = "table: \"_members\" begins with _";
    let table = String::from("_members");
    refused(client.put(put(&table, "k", "v")).await, Code::InvalidArgument, message);
    let kind = proto::IdKind::UuidV7;
    refused(client.insert(insert(&table, kind)).await, Code::InvalidArgument, message);
    let get = proto::GetRequest { table: table.clone(), key: "k".into(), ..<_>::default() };
    refused(client.get(get).await, Code::InvalidArgument, message);
    let get = proto::GetManyRequest { table: table.clone(), ..<_>::default() };
    refused(client.get_many(get).await, Code::InvalidArgument, message);
    let scan = proto::ScanRequest { table, ..<_>::default() };
    refused(client.scan(scan).await, Code::InvalidArgument, message);
}

#[tokio::test]
async fn the_number_of_tables() {
    let served = Served::new().await;
    let of = |number: usize| Mutation::Put(put(&format!("t{number}"), "k", "v"));
    // One is the system's own.
    for first in (1..TABLES_MAX).step_by(1_000) {
        served.batch((first..TABLES_MAX.min(first + 1_000)).map(of)).await.unwrap();
    }
    let answer = served.batch([of(1), of(TABLES_MAX)]).await;
    refused(answer, Code::ResourceExhausted, "table: t10000 would be more than the 10000 tables");
    served.batch([of(1)]).await.unwrap();
}

#[tokio::test]
async fn keys() {
    let served = Served::new().await;
    let mut client = served.client.clone();
    client.put(put("t", vec![0; 512], "v")).await.unwrap();
    for length in [0, 513] {
        let key = || Bytes::from(vec![0; length]);
        let message = format!("key: {length} bytes long; a key has 1 to 512 bytes");
        refused(client.put(put("t", key(), "v")).await, Code::InvalidArgument, &message);
        refused(client.delete(delete("t", key())).await, Code::InvalidArgument, &message);
        let get = proto::GetRequest { table: "t".into(), key: key(), ..<_>::default() };
        refused(client.get(get).await, Code::InvalidArgument, &message);
        let keys = vec!["k".into(), key()];
        let get = proto::GetManyRequest { table: "t".into(), keys, ..<_>::default() };
        refused(client.get_many(get).await, Code::InvalidArgument, &format!("keys[1]: {length}"));
    }
}

#[tokio::test]
async fn values() {
    let served = Served::new().await;
    let mut client = served.client.clone();
    let largest = vec![7; 1 << 20];
    client.put(put("t", "k", largest.clone())).await.unwrap();
    assert_eq!(served.get("t", "k").await.unwrap().value, largest);
    client.put(put("t", "empty", "")).await.unwrap();
    assert_eq!(served.get("t", "empty").await.unwrap().value, "");
    let larger = vec![7; (1 << 20) + 1];
    let message = "value: 1,048,577 bytes long; a value has at most 1,048,576 bytes \
                   (limits.value_bytes_max)";
    refused(client.put(put("t", "k", larger.clone())).await, Code::InvalidArgument, message);
    let request =
        proto::InsertRequest { value: larger.clone().into(), ..insert("t", proto::IdKind::UuidV7) };
    refused(client.insert(request).await, Code::InvalidArgument, message);
    let answer = served.batch([Mutation::Put(put("t", "k", larger))]).await;
    refused(answer, Code::InvalidArgument, &format!("mutations[0].put.{message}"));
}

#[tokio::test]
async fn times_to_live() {
    let served = Served::new().await;
    let mut client = served.client.clone();
    let mut with = async |ttl| {
        let insertion = proto::InsertRequest { ttl, ..insert("t", proto::IdKind::UuidV7) };
        let put = client.put(proto::PutRequest { ttl, ..put("t", "k", "v") }).await.map(drop);
        let insert = client.insert(insertion).await.map(drop);
        assert_eq!(put.is_ok(), insert.is_ok());
        put
    };
    with(ttl_ms(1)).await.unwrap();
    let longest = i64::try_from(EXPIRES_AT_MS_MAX - START_MS).unwrap();
    with(ttl_ms(longest)).await.unwrap();
    let row = served.get("t", "k").await.unwrap();
    assert_eq!(row.expire_time.unwrap().to_string(), "9999-12-31T00:00:00Z");
    let code = Code::InvalidArgument;
    refused(with(ttl_ms(longest + 1)).await, code, "ttl: ends after the year 9999");
    refused(with(ttl_ms(i64::MAX)).await, code, "ttl: ends after the year 9999");
    refused(with(ttl_ms(0)).await, code, "ttl: less than 1 ms");
    refused(with(ttl_ms(-1)).await, code, "ttl: negative");
    let crooked = prost_types::Duration { seconds: 1, nanos: 1_000_000_000 };
    refused(with(Some(crooked)).await, code, "ttl: nanos is 1000000000");
}

#[tokio::test]
async fn batches() {
    let served = Served::with(|settings| settings.api.limits.request_bytes_max = 100_000).await;
    let of = |number: usize| Mutation::Put(put("t", number.to_string(), "v"));
    served.batch((0..1_000).map(of)).await.unwrap();
    let answer = served.batch((0..1_001).map(of)).await;
    let message = "mutations: 1,001 given; a batch has 1 to 1,000 (limits.batch_mutations_max)";
    refused(answer, Code::InvalidArgument, message);
    refused(served.batch([]).await, Code::InvalidArgument, "mutations: none given");
    let mutations = vec![proto::Mutation { mutation: None }];
    let answer =
        served.client.clone().batch(proto::BatchRequest { mutations, ..Default::default() }).await;
    refused(answer, Code::InvalidArgument, "mutations[0]: empty: set one of");

    // Two values and the two mutations' tables and keys.
    let half = |bytes: usize| Mutation::Put(put("t", "k", vec![0; bytes]));
    served.batch([half(50_000 - 2), half(50_000 - 2)]).await.unwrap();
    let answer = served.batch([half(50_000 - 2), half(50_000 - 1)]).await;
    let message = "mutations: 100,001 bytes in all; a request has at most 100,000 bytes";
    refused(answer, Code::InvalidArgument, message);
    // Far above it the message itself is not read.
    let answer = served.batch([half(1 << 20), half(1 << 20)]).await;
    refused(answer, Code::OutOfRange, "Error, decoded message length too large");
}

#[tokio::test]
async fn many_keys_and_their_rows() {
    let served = Served::new().await;
    let mut client = served.client.clone();
    let of = |keys: Vec<Bytes>| proto::GetManyRequest { table: "t".into(), keys, ..<_>::default() };
    let keys: Vec<_> = (0..1_001).map(|number| Bytes::from(number.to_string())).collect();
    let answer = client.get_many(of(keys[..1_000].to_vec())).await.unwrap().into_inner();
    assert_eq!(answer.rows.len(), 1_000);
    let message = "keys: 1,001 given; a request has at most 1,000 (limits.get_many_keys_max)";
    refused(client.get_many(of(keys)).await, Code::InvalidArgument, message);
    assert!(client.get_many(of(vec![])).await.unwrap().into_inner().rows.is_empty());

    // What clients of gRPC take in by default: 4 MiB.
    served.put("t", "large", vec![0; 1 << 20]).await;
    let large = |count| of(vec!["large".into(); count]);
    assert_eq!(client.get_many(large(3)).await.unwrap().into_inner().rows.len(), 3);
    let message = "keys: the rows come to more than 4,128,768 bytes";
    refused(client.get_many(large(4)).await, Code::ResourceExhausted, message);
}

#[tokio::test]
async fn the_rest() {
    let served = Served::new().await;
    let mut client = served.client.clone();
    let code = Code::InvalidArgument;
    let request = proto::InsertRequest { id_kind: 7, ..insert("t", proto::IdKind::UuidV7) };
    refused(client.insert(request).await, code, "id_kind: 7 is no kind of id");

    let of = || proto::ScanRequest { table: "t".into(), ..<_>::default() };
    let both = || proto::ScanRequest { prefix: "p".into(), ..of() };
    let message = "prefix: given together with start or end";
    let scan = proto::ScanRequest { start: "s".into(), ..both() };
    refused(client.scan(scan).await, code, message);
    let scan = proto::ScanRequest { end: "e".into(), ..both() };
    refused(client.scan(scan).await, code, message);
    let long = |length| Bytes::from(vec![0; length]);
    let scan = proto::ScanRequest { start: long(513), end: long(513), ..of() };
    client.scan(scan).await.unwrap();
    let scan = proto::ScanRequest { prefix: long(513), ..of() };
    refused(client.scan(scan).await, code, "prefix: 513 bytes long");
    let scan = proto::ScanRequest { end: long(514), ..of() };
    refused(client.scan(scan).await, code, "end: 514 bytes long");

    let get = |session: Vec<u8>| proto::GetRequest {
        table: "t".into(),
        key: "k".into(),
        session: session.into(),
    };
    refused(client.get(get(vec![1; 24])).await, code, "session: not a token");
    refused(client.get(get(vec![0])).await, code, "session: not a token");
    refused(client.get(get(vec![1; 300_000])).await, code, "session: 300,000 bytes long");
}
