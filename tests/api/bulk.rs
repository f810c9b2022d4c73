//! Loads: many batches under way on one stream.

use lastword::wire::proto::{BulkWriteRequest, BulkWriteResponse, GetRequest, Mutation, mutation};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::Code;

use crate::served::{PATIENCE, Served, insert, put};

fn put_request(key: String, value: String) -> BulkWriteRequest {
    let put = mutation::Mutation::Put(put("t", key, value));
    BulkWriteRequest { mutations: vec![Mutation { mutation: Some(put) }] }
}

async fn answers(served: &Served, requests: Vec<BulkWriteRequest>) -> Vec<BulkWriteResponse> {
    let stream = tokio_stream::iter(requests);
    let answers = served.client.clone().bulk_write(stream).await.unwrap().into_inner();
    answers.map(Result::unwrap).collect().await
}

#[tokio::test]
async fn each_request_is_answered_in_order_and_many_share_a_commit() {
    const REQUESTS: usize = 3_000;
    let served = Served::new().await;
    let before = served.node.status().unwrap().commits;
    let requests = (0..REQUESTS).map(|n| put_request(format!("k{}", n % 100), n.to_string()));
    let answers = answers(&served, requests.collect()).await;
    assert_eq!(answers.len(), REQUESTS);
    let mut stamps = Vec::new();
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.error, None);
        assert_eq!(answer.results[0].key, format!("k{}", n % 100));
        assert!(!answer.session.is_empty());
        stamps.push(answer.results[0].version.as_ref().unwrap().hlc);
    }
    assert!(stamps.is_sorted_by(|a, b| a < b), "applied in the order sent");
    for key in 0..100 {
        let row = served.get("t", format!("k{key}")).await.unwrap();
        assert_eq!(row.value, (REQUESTS - 100 + key).to_string(), "the last of each key stands");
    }
    let commits = served.node.status().unwrap().commits - before;
    assert!(commits < REQUESTS as u64 / 4, "{commits} commits for {REQUESTS} requests");
}

#[tokio::test]
async fn a_request_that_is_wrong_is_answered_with_its_error_and_the_stream_goes_on() {
    let served = Served::new().await;
    let too_long = put_request("x".repeat(513), "v".into());
    let mut half_wrong = put_request("half".into(), "v".into());
    half_wrong.mutations.extend(too_long.mutations.clone());
    let sequence = mutation::Mutation::Insert(insert("t", lastword::wire::proto::IdKind::Sequence));
    let no_sequence = BulkWriteRequest { mutations: vec![Mutation { mutation: Some(sequence) }] };
    let requests = vec![
        put_request("a".into(), "v".into()),
        half_wrong,
        BulkWriteRequest::default(),
        no_sequence,
        put_request("b".into(), "v".into()),
    ];
    let answers = answers(&served, requests).await;
    let code = |at: usize| answers[at].error.as_ref().map(|error| error.code as i32);
    let codes: Vec<_> = (0..answers.len()).map(code).collect();
    let invalid = Some(Code::InvalidArgument as i32);
    let precondition = Some(Code::FailedPrecondition as i32);
    assert_eq!(codes, [None, invalid, invalid, precondition, None]);
    let message = &answers[1].error.as_ref().unwrap().message;
    assert!(message.starts_with("mutations[1].put.key: "), "{message}");
    assert!(served.get("t", "half").await.is_none(), "nothing of a wrong request is written");
    assert!(served.get("t", "b").await.is_some());
}

#[tokio::test]
async fn loads_of_tiny_requests_whose_answers_nobody_reads_yet_leave_the_connection_whole() {
    /// As many as a stream takes in unread, nearly: 28 bytes each.
    const REQUESTS: usize = 30_000;
    let served = Served::new().await;
    let mut client = served.patient_client();
    let mut loads = Vec::new();
    for load in 0..2 {
        // A place for one, so that each goes out in a frame of its own.
        let (requests, queue) = mpsc::channel(1);
        let answers = client.bulk_write(ReceiverStream::new(queue)).await.unwrap().into_inner();
        let sent = timeout(PATIENCE, async {
            for n in 0..REQUESTS {
                let request = put_request(format!("{load}-{:05}", n % 100), format!("{n:05}"));
                assert!(requests.send(request).await.is_ok(), "load {load} broke at request {n}");
            }
        });
        sent.await.expect("a load that waits holds up no other");
        loads.push(answers);
    }
    let get = GetRequest { table: "t".into(), key: "0-00000".into(), ..<_>::default() };
    let row = timeout(PATIENCE, client.get(get)).await.expect("nor a read").unwrap();
    assert!(row.into_inner().row.is_some());
    for (load, answers) in loads.into_iter().enumerate() {
        let mut read = 0;
        let mut answers = answers.map(|answer| answer.expect("an answer to each request"));
        while let Some(answer) = answers.next().await {
            assert_eq!(answer.results[0].key, format!("{load}-{:05}", read % 100));
            read += 1;
        }
        assert_eq!(read, REQUESTS);
    }
}
