//! Get, get many, and the sessions that reads follow.

use std::time::Duration;

use bytes::Bytes;
use lastword::wire::{proto, session::Session};
use tonic::Code;

use crate::served::{Served, delete, insert, peer, peer_heads, peer_row, put, refused};

fn get(key: &'static str, session: Bytes) -> proto::GetRequest {
    proto::GetRequest { table: "t".into(), key: key.into(), session }
}

#[tokio::test]
async fn get_many_answers_in_the_order_asked() {
    let served = Served::new().await;
    for key in ["a", "b", "c"] {
        served.put("t", key, format!("value of {key}")).await;
    }
    // A few are read where the request runs, many where blocking is allowed.
    for repeat in [1, 10] {
        let asked = ["c", "missing", "a", "c"].repeat(repeat);
        let request = proto::GetManyRequest {
            table: "t".into(),
            keys: asked.iter().map(|key| Bytes::from_static(key.as_bytes())).collect(),
            session: Bytes::new(),
        };
        let answer = served.client.clone().get_many(request).await.unwrap().into_inner();
        assert_eq!(answer.rows.len(), asked.len());
        for (found, key) in answer.rows.iter().zip(asked) {
            assert_eq!(found.key, key);
            match &found.row {
                Some(row) => assert_eq!(row.value, format!("value of {key}")),
                None => assert_eq!(key, "missing"),
            }
        }
        assert!(!answer.session.is_empty());
    }
}

#[tokio::test]
async fn a_client_reads_its_own_write() {
    let served = Served::new().await;
    let mut client = served.client.clone();
    for round in 0..50 {
        let value = round.to_string();
        let session = client.put(put("t", "k", value.clone())).await.unwrap().into_inner().session;
        let answer = client.get(get("k", session)).await.unwrap().into_inner();
        assert_eq!(answer.row.unwrap().value, value);
        assert!(!answer.session.is_empty());
    }
}

#[tokio::test]
async fn a_session_ahead_of_this_site_is_told_so() {
    let served =
        Served::with(|settings| settings.api.limits.read_wait_max = Duration::from_millis(200))
            .await;
    served.merge(vec![], Some(peer_heads(1_000))).await;
    let session = Session::from(peer_heads(3_500)).token();
    let mut client = served.client.clone();
    let began = tokio::time::Instant::now();
    let answer = client.get(get("k", session.clone())).await;
    let waited = began.elapsed();
    refused(
        answer,
        Code::FailedPrecondition,
        "session: this site is 2500 ms behind what the session has seen, after waiting 200 ms",
    );
    assert!(waited >= Duration::from_millis(200) && waited < Duration::from_secs(2), "{waited:?}");

    let many = proto::GetManyRequest { table: "t".into(), keys: vec![], session: session.clone() };
    refused(client.get_many(many).await, Code::FailedPrecondition, "session: ");
    let scan = proto::ScanRequest { table: "t".into(), session, ..<_>::default() };
    refused(client.scan(scan).await, Code::FailedPrecondition, "session: ");
}

#[tokio::test]
async fn a_session_that_this_site_reaches_meanwhile_is_served() {
    let served =
        Served::with(|settings| settings.api.limits.read_wait_max = crate::served::PATIENCE).await;
    let session = Session::from(peer_heads(1_000)).token();
    let mut client = served.client.clone();
    let mut waiting = tokio::spawn(async move { client.get(get("k", session)).await });
    let early = tokio::time::timeout(Duration::from_millis(100), &mut waiting).await;
    assert!(early.is_err(), "answered before the site was there");
    served.merge(vec![peer_row("k", Some("theirs"), 1_000)], Some(peer_heads(1_000))).await;
    let answer = waiting.await.unwrap().unwrap().into_inner();
    let row = answer.row.unwrap();
    assert_eq!(&row.value[..], b"theirs");
    assert_eq!(row.version.unwrap().origin, &peer().as_bytes()[..]);
    assert_eq!(row.site, "", "a site not met yet has no name");
}

/// Who read elsewhere, writes here and reads here must still be told that this site is behind.
#[tokio::test]
async fn a_write_keeps_what_its_session_has_seen() {
    let served =
        Served::with(|settings| settings.api.limits.read_wait_max = Duration::from_millis(20))
            .await;
    let session = Session::from(peer_heads(3_500)).token();
    let mut client = served.client.clone();
    let (put_of, delete_of) = (put, delete);
    let put = proto::PutRequest { session: session.clone(), ..put_of("t", "k", "v") };
    let put = client.put(put).await.unwrap().into_inner().session;
    let delete = proto::DeleteRequest { session: session.clone(), ..delete("t", "k") };
    let delete = client.delete(delete).await.unwrap().into_inner().session;
    let insert =
        proto::InsertRequest { session: session.clone(), ..insert("t", proto::IdKind::UuidV7) };
    let insert = client.insert(insert).await.unwrap().into_inner().session;
    let mutation = proto::mutation::Mutation::Delete(delete_of("t", "k"));
    let mutations = vec![proto::Mutation { mutation: Some(mutation) }];
    let batch = proto::BatchRequest { mutations, session: session.clone() };
    let batch = client.batch(batch).await.unwrap().into_inner().session;
    for token in [put, delete, insert, batch] {
        refused(client.get(get("k", token.clone())).await, Code::FailedPrecondition, "session: ");
        let own = Session::from_token(&token).unwrap();
        assert!(own.required_at(peer()).covers(&peer_heads(3_500)));
        let own_head = own.required_at(peer()).get(served.node.origin());
        assert!(own_head > lastword::model::Hlc::ZERO, "the write itself is not in the token");
    }
    let malformed = proto::PutRequest { session: "x".into(), ..put_of("t", "k", "v") };
    refused(client.put(malformed).await, Code::InvalidArgument, "session: ");
}

/// Rows of a delta are shown before the site can claim them: who read one is not sent back in time
/// elsewhere, nor refused here.
#[tokio::test]
async fn what_was_read_of_an_unfinished_delta_counts_elsewhere() {
    let here =
        Served::with(|settings| settings.api.limits.read_wait_max = Duration::from_millis(50))
            .await;
    here.put("t", "gone", "v").await;
    here.merge(vec![peer_row("k", Some("theirs"), 500), peer_row("gone", None, 600)], None).await;
    let mut client = here.client.clone();
    let seen = client.get(get("k", Bytes::new())).await.unwrap().into_inner();
    assert!(seen.row.is_some());
    // A row that is not there any more was seen just as well.
    let seen = client.get(get("gone", seen.session)).await.unwrap().into_inner();
    assert_eq!(seen.row, None);
    let again = client.get(get("k", seen.session.clone())).await.unwrap().into_inner();
    assert_eq!(again.session, seen.session);

    let elsewhere =
        Served::with(|settings| settings.api.limits.read_wait_max = Duration::from_millis(50))
            .await;
    let heads: Vec<_> = here.node.heads().iter().collect();
    elsewhere.merge(vec![], Some(heads.into_iter().collect())).await;
    let mut client = elsewhere.client.clone();
    refused(
        client.get(get("k", seen.session.clone())).await,
        Code::FailedPrecondition,
        "session: this site is ",
    );
    elsewhere.merge(vec![peer_row("k", Some("theirs"), 500)], Some(peer_heads(600))).await;
    assert!(client.get(get("k", seen.session)).await.unwrap().into_inner().row.is_some());
}
