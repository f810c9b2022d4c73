//! The Rust client against nodes that misbehave: sessions, failover, and what is never sent twice.

use std::time::Duration;

use bytes::Bytes;
use lastword::{
    client::{Client, ClientError, Options, Session},
    wire::proto,
};
use tokio::{io::AsyncReadExt, net::TcpListener};

mod fake_node;

use fake_node::{FakeNode, Mood};

fn client(urls: &[&str]) -> Client {
    Client::new(urls, Options::default()).unwrap()
}

/// Privileged ports of loopback where nobody listens.
const NOWHERE: [&str; 2] = ["http://127.0.0.1:1", "http://127.0.0.1:2"];

/// Takes connections, reads a little, and breaks them.
async fn breaking() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 64]).await;
        }
    });
    url
}

#[tokio::test]
async fn every_call_does_its_part() {
    let node = FakeNode::start("fra").await;
    let mut client = client(&[&node.url]);
    client.put("t", "a", "1", None).await.unwrap();
    client.put("t", "b", "2", Some(Duration::from_millis(1500))).await.unwrap();
    let row = client.get("t", "b").await.unwrap().unwrap();
    assert_eq!((row.value, row.site.as_str()), ("2".into(), "fra"));
    assert_eq!(node.state().ttls, [prost_types::Duration { seconds: 1, nanos: 500_000_000 }]);

    let found = client.get_many("t", vec!["b".into(), "x".into(), "a".into()]).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|f| f.row.map(|row| row.value)).collect();
    assert_eq!(found, [Some("2".into()), None, Some(Bytes::from("1"))]);

    let inserted = client.insert("t", "3", None, proto::IdKind::Sequence).await.unwrap();
    assert_eq!((inserted.key, inserted.version.hlc), ("4711".into(), 3));

    let request = proto::ScanRequest { table: "t".into(), reverse: true, ..Default::default() };
    let mut keys = Vec::new();
    let mut scan = client.scan(request).await.unwrap();
    while let Some(rows) = scan.next().await.unwrap() {
        keys.extend(rows.into_iter().map(|row| row.key));
    }
    assert_eq!(keys, ["b", "a", "4711"]);

    let delete = proto::DeleteRequest { table: "t".into(), key: "a".into(), ..Default::default() };
    let delete = proto::mutation::Mutation::Delete(delete);
    let results = client.batch(vec![proto::Mutation { mutation: Some(delete) }]).await.unwrap();
    assert!(results[0].existed);
    assert!(!client.delete("t", "a").await.unwrap().existed);
    assert_eq!(client.get("t", "a").await.unwrap(), None);
    client.status().await.unwrap();
}

#[tokio::test]
async fn a_load_has_many_batches_under_way_and_ends_when_its_requests_do() {
    let node = FakeNode::start("fra").await;
    let mut client =
        client(&NOWHERE.iter().copied().chain([node.url.as_str()]).collect::<Vec<_>>());
    let (requests, mut answers) = client.bulk_write().await.unwrap();
    let put = |key: String| {
        let put = proto::PutRequest { table: "t".into(), key: key.into(), ..Default::default() };
        vec![proto::Mutation { mutation: Some(proto::mutation::Mutation::Put(put)) }]
    };
    for n in 0..50 {
        requests.send(put(format!("{n:02}"))).await.unwrap();
    }
    drop(requests);
    let mut keys = Vec::new();
    while let Some(answer) = answers.next().await.unwrap() {
        keys.extend(answer.results.into_iter().map(|result| result.key));
    }
    let sent: Vec<_> = (0..50).map(|n| Bytes::from(format!("{n:02}"))).collect();
    assert_eq!(keys, sent);
    assert!(client.get("t", "49").await.unwrap().is_some());
}

#[tokio::test]
async fn tiny_answers_that_nobody_has_read_yet_leave_the_connection_whole() {
    /// Fewer than a stream takes in unread: 41 bytes each.
    const REQUESTS: usize = 40_000;
    let node = FakeNode::start("fra").await;
    let mut client = client(&[&node.url]);
    let (requests, mut answers) = client.bulk_write().await.unwrap();
    for n in 0..REQUESTS {
        let put = proto::PutRequest { table: "t".into(), key: "k".into(), ..Default::default() };
        let put = proto::mutation::Mutation::Put(put);
        let sent = requests.send(vec![proto::Mutation { mutation: Some(put) }]).await;
        sent.unwrap_or_else(|error| panic!("request {n}: {error}"));
        // So that each goes out, and is answered, in a frame of its own.
        tokio::task::yield_now().await;
    }
    // The node answers each at once: all are here, unread.
    while node.state().writes() < REQUESTS as u64 {
        tokio::task::yield_now().await;
    }
    assert!(client.get("t", "k").await.unwrap().is_some());
    drop(requests);
    let mut read = 0;
    while answers.next().await.unwrap().is_some() {
        read += 1;
    }
    assert_eq!(read, REQUESTS);
}

#[tokio::test]
async fn a_read_carries_the_token_of_the_last_answer() {
    let node = FakeNode::start("fra").await;
    let mut client = client(&[&node.url]);
    client.get("t", "a").await.unwrap();
    client.put("t", "a", "1", None).await.unwrap();
    let mut clone = client.clone();
    client.put("t", "a", "2", None).await.unwrap();
    client.get("t", "a").await.unwrap();
    clone.get("t", "a").await.unwrap();
    client.set_session(Session::from_token("kept"));
    client.scan(proto::ScanRequest { table: "t".into(), ..Default::default() }).await.unwrap();
    assert_eq!(node.state().sessions, ["", "fra/2", "fra/1", "kept"]);
}

#[tokio::test]
async fn a_node_that_cannot_is_passed_over_and_asked_again_later() {
    let (first, second) = (FakeNode::start("fra").await, FakeNode::start("nyc").await);
    let options = Options { prefer_again_after: Duration::ZERO, ..Options::default() };
    let mut client = Client::new([NOWHERE[0], &first.url, &second.url], options).unwrap();
    client.put("t", "a", "1", None).await.unwrap();
    assert_eq!((first.state().calls, second.state().calls), (1, 0));

    first.state().mood = Mood::Unavailable;
    client.put("t", "a", "2", None).await.unwrap();
    assert_eq!((first.state().calls, second.state().calls), (2, 1));

    first.state().mood = Mood::Well;
    client.put("t", "a", "3", None).await.unwrap();
    assert_eq!((first.state().calls, second.state().calls), (3, 1));
}

#[tokio::test]
async fn the_node_that_worked_stays_in_use() {
    let (first, second) = (FakeNode::start("fra").await, FakeNode::start("nyc").await);
    let mut client = client(&[&first.url, &second.url]);
    first.state().mood = Mood::Unavailable;
    for _ in 0..3 {
        client.get("t", "a").await.unwrap();
    }
    assert_eq!((first.state().calls, second.state().calls), (1, 3));
}

#[tokio::test]
async fn where_nobody_listens_each_address_is_named() {
    let error = client(&NOWHERE).get("t", "a").await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable(_)), "{error:?}");
    let [first, second] = NOWHERE;
    let refused = "(Connection refused (os error 111))";
    assert_eq!(
        error.to_string(),
        format!("cannot connect to {first} {refused}, nor to {second} {refused}")
    );
}

#[tokio::test]
async fn when_every_node_is_unavailable_the_last_answer_is_told() {
    let (first, second) = (FakeNode::start("fra").await, FakeNode::start("nyc").await);
    first.state().mood = Mood::Unavailable;
    second.state().mood = Mood::Unavailable;
    let error = client(&[&first.url, &second.url]).get("t", "a").await.unwrap_err();
    assert_eq!(error.to_string(), "the node is starting: try again");
    assert_eq!((first.state().calls, second.state().calls), (1, 1));
}

#[tokio::test]
async fn a_refusal_is_final() {
    let (first, second) = (FakeNode::start("fra").await, FakeNode::start("nyc").await);
    let error = client(&[&first.url, &second.url]).get("_x", "a").await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error:?}");
    assert_eq!(second.state().calls, 0);
}

#[tokio::test]
async fn an_insert_that_may_have_been_done_is_not_sent_again_but_a_put_is() {
    let node = FakeNode::start("fra").await;
    let broken = breaking().await;
    let error = client(&[&broken, &node.url])
        .insert("t", "1", None, proto::IdKind::UuidV7)
        .await
        .unwrap_err();
    assert!(matches!(&error, ClientError::Lost { server, .. } if *server == broken), "{error:?}");
    assert_eq!(node.state().calls, 0);

    client(&[&broken, &node.url]).put("t", "a", "1", None).await.unwrap();
    assert_eq!(node.state().calls, 1);

    // Where nobody took it, an insert goes to the next node, too.
    let busy = FakeNode::start("nyc").await;
    busy.state().mood = Mood::Unavailable;
    let mut client = client(&[NOWHERE[0], &busy.url, &node.url]);
    client.insert("t", "1", None, proto::IdKind::UuidV7).await.unwrap();
    assert_eq!((busy.state().calls, node.state().calls), (1, 2));
}

#[tokio::test]
async fn a_silent_node_ends_in_a_time_out_and_the_next_call_goes_elsewhere() {
    let (silent, well) = (FakeNode::start("fra").await, FakeNode::start("nyc").await);
    silent.state().mood = Mood::Silent;
    let options = Options { request_timeout: Duration::from_millis(200), ..Options::default() };
    let mut client = Client::new([&silent.url, &well.url], options).unwrap();
    let error = client.get("t", "a").await.unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error:?}");
    client.get("t", "a").await.unwrap();
}

#[tokio::test]
async fn a_call_may_run_in_a_task_of_its_own() {
    let node = FakeNode::start("fra").await;
    let client = client(&[&node.url]);
    let tasks: Vec<_> = (0..10)
        .map(|i| {
            let mut client = client.clone();
            tokio::spawn(async move { client.put("t", format!("{i}"), "v", None).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(node.state().calls, 10);
}

#[tokio::test]
async fn addresses_of_no_use_are_named() {
    let error = Client::new(["not a url"], Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "server \"not a url\": is not a URL: write http://HOST:PORT");
    Client::new::<&str>([], Options::default()).unwrap_err();
}
