//! What surrounds the rows: health, reflection, status, and the end.

use std::time::Duration;

use futures_util::StreamExt;
use lastword::{
    api::GRACE,
    node::{Direction, LastError, MirrorReport, PeerReport},
    wire::{proto, session::Session},
};
use tokio::time::{Instant, timeout};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::served::{PATIENCE, Served, channel, peer, peer_heads, peer_row, put};

const SERVICES: [&str; 4] = [
    "",
    "lastword.v1.KeyValueService",
    "lastword.v1.AdminService",
    "lastword.v1.ReplicationService",
];

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn health_is_serving_until_the_shutdown() {
    let served = Served::new().await;
    let mut health = HealthClient::new(channel(served.address));
    for service in SERVICES {
        let answer = health.check(of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    assert!(health.check(of("lastword.v1.Other")).await.is_err());
    let mut watch = health.watch(of(SERVICES[1])).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    served.shutdown.cancel();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    // Who only watches does not hold up the end.
    let began = Instant::now();
    timeout(PATIENCE, served.serving).await.unwrap().unwrap().unwrap();
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn health_of_a_new_site_is_serving_once_it_has_caught_up() {
    let served =
        Served::with(|settings| settings.node.peers = vec!["http://127.0.0.1:1".into()]).await;
    let mut health = HealthClient::new(channel(served.address));
    for (service, status) in SERVICES.into_iter().zip([
        ServingStatus::NotServing,
        ServingStatus::NotServing,
        ServingStatus::Serving,
        ServingStatus::Serving,
    ]) {
        let answer = health.check(of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), status, "{service}");
    }
    // Whoever asks is served all the same, and neither that nor rows without a claim make it ready.
    served.put("t", "k", "v").await;
    served.merge(vec![peer_row("theirs", Some("v"), 0)], None).await;
    let mut watch = health.watch(of("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let status = served.admin().status(proto::StatusRequest {}).await.unwrap().into_inner();
    let catching_up = status.node.unwrap().catching_up.unwrap();
    assert!(catching_up.reason.ends_with("no peer is connected"), "{}", catching_up.reason);

    served.merge(Vec::new(), Some(peer_heads(0))).await;
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let answer = health.check(of(SERVICES[1])).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    let status = served.admin().status(proto::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.node.unwrap().catching_up, None);
    served.shutdown.cancel();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn health_follows_a_node_that_stops() {
    let served = Served::new().await;
    let mut health = HealthClient::new(channel(served.address));
    let mut watch = health.watch(of("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    served.node.shutdown().await;
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let answer = health.check(of(SERVICES[1])).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn reflection_shows_the_services_and_their_files() {
    let served = Served::new().await;
    let mut client = ServerReflectionClient::new(channel(served.address));
    let mut ask = async |request| {
        let request =
            ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let requests = tokio_stream::once(request);
        let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
        answers.next().await.unwrap().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) =
        ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for service in &SERVICES[1..] {
        assert!(names.iter().any(|name| name == service), "{service} in {names:?}");
    }
    assert!(names.iter().any(|name| name == "grpc.health.v1.Health"), "{names:?}");
    // With the files that they import, so that a client can be made of them.
    for file in ["lastword/v1/key_value.proto", "google/protobuf/duration.proto"] {
        let answer = ask(MessageRequest::FileByFilename(file.into())).await;
        assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{file}: {answer:?}");
    }
}

#[tokio::test]
async fn status_tells_of_node_peers_and_mirror() {
    let served = Served::new().await;
    served.put("t", "k", "v").await;
    served.merge(vec![peer_row("theirs", Some("v"), 0)], Some(peer_heads(0))).await;
    let error = LastError { message: "connection refused".into(), at_ms: 1_760_000_000_500 };
    let peer_handle = served.node.reports().add_peer(PeerReport {
        address: "http://127.0.0.1:7410".into(),
        site: "nyc".into(),
        origin: Some(peer()),
        direction: Some(Direction::Dialled),
        clock_offset_ms: Some(-3),
        last_error: Some(error),
        ..PeerReport::default()
    });
    let _mirror_handle = served.node.reports().add_mirror(MirrorReport {
        target: "127.0.0.1:3306/shop".into(),
        connected: true,
        position: Some(peer_heads(0)),
        ..MirrorReport::default()
    });
    let mut admin = served.admin();
    let status = admin.status(proto::StatusRequest {}).await.unwrap().into_inner();
    let node = status.node.unwrap();
    assert_eq!((node.cluster.as_str(), node.site.as_str()), ("lastword", "fra"));
    assert_eq!(node.origin, served.node.origin().to_string());
    assert_eq!(node.start_time.unwrap().to_string(), "2025-10-09T08:53:20Z");
    // The node's own row in the member list is one of them.
    assert_eq!((node.rows, node.rows_written, node.rows_merged), (3, 2, 1));
    assert!(node.store_bytes > 0 && node.commits >= 3 && node.writes_refused_reason.is_empty());
    assert_eq!(node.heads.len(), 2);
    let [peer_status] = &status.peers[..] else { panic!("{:?}", status.peers) };
    assert!(peer_status.connected && peer_status.receiving && peer_status.applying);
    assert_eq!(peer_status.direction, "dialled");
    assert_eq!(peer_status.behind_seconds, Some(0.0));
    assert_eq!(peer_status.clock_offset_ms, Some(-3));
    assert_eq!(peer_status.last_error, "connection refused");
    assert!(peer_status.last_error_time.is_some());
    assert_eq!(peer_status.peer_behind_rows, 3, "it has acknowledged nothing");
    let mirror = status.mirror.unwrap();
    assert_eq!((mirror.target.as_str(), mirror.connected), ("127.0.0.1:3306/shop", true));
    assert_eq!(mirror.behind_rows, 2);
    drop(peer_handle);
    let status = admin.status(proto::StatusRequest {}).await.unwrap().into_inner();
    assert!(status.peers.is_empty());
}

#[tokio::test]
async fn what_runs_at_the_shutdown_is_finished() {
    let served = Served::with(|settings| settings.api.limits.read_wait_max = PATIENCE).await;
    let session = Session::from(peer_heads(1_000)).token();
    let request = proto::GetRequest { table: "t".into(), key: "k".into(), session };
    let mut client = served.client.clone();
    let mut waiting = tokio::spawn(async move { client.get(request).await });
    let early = timeout(Duration::from_millis(100), &mut waiting).await;
    assert!(early.is_err(), "it waits for the site");

    served.shutdown.cancel();
    let mut late =
        proto::key_value_service_client::KeyValueServiceClient::new(channel(served.address));
    crate::served::until("the door to close", async || {
        late.put(put("t", "late", "v")).await.is_err()
    })
    .await;
    served.merge(vec![peer_row("k", Some("v"), 1_000)], Some(peer_heads(1_000))).await;
    assert!(waiting.await.unwrap().unwrap().into_inner().row.is_some());
    timeout(PATIENCE, served.serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn what_does_not_end_is_cut_off_after_the_grace() {
    let served = Served::with(|settings| settings.api.limits.read_wait_max = PATIENCE).await;
    let session = Session::from(peer_heads(1_000)).token();
    let request = proto::GetRequest { table: "t".into(), key: "k".into(), session };
    let mut client = served.client.clone();
    let mut waiting = tokio::spawn(async move { client.get(request).await });
    assert!(timeout(Duration::from_millis(100), &mut waiting).await.is_err());
    let began = Instant::now();
    served.shutdown.cancel();
    timeout(PATIENCE, served.serving).await.unwrap().unwrap().unwrap();
    let took = began.elapsed();
    assert!(took >= GRACE && took < GRACE + Duration::from_secs(3), "{took:?}");
    assert!(waiting.await.unwrap().is_err());
}
