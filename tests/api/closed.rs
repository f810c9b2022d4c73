//! A site that was removed, and of whose writes none is missing: its head is no stamp.

use lastword::{
    model::{Body, BodyParts, Context, Heads, Hlc, Origin, Role, Row, Version},
    node::PeerReport,
    protocol::{SystemRow, member_row},
    wire::{
        proto::{self, ImportRequest, export_request::Since, import_request::Part},
        session::Session,
    },
};
use tonic::Code;

use crate::served::{START_MS, Served, peer, peer_heads, peer_row, refused};

/// What the peer says of itself in the member list.
fn peers_name() -> Row {
    let SystemRow { table, key, value } = member_row(peer(), "nyc", Role::Site);
    let body = Body::new(&BodyParts {
        version: Version { hlc: Hlc::at_ms(START_MS + 1), origin: peer() },
        seen: Hlc::ZERO,
        context: &Context::new(),
        expires_at_ms: None,
        value: Some(&value),
    });
    Row { table, key, body }
}

/// A node that has closed the peer, of which five milliseconds of writes were spread.
async fn closed() -> Served {
    let served = Served::new().await;
    served.merge(vec![peers_name(), peer_row("k", Some("v"), 5)], Some(peer_heads(5))).await;
    served.node.seal().await.unwrap();
    served.node.remove_member(peer()).await.unwrap();
    for _ in 0..3 {
        served.node.advance().await.unwrap();
    }
    assert!(served.node.heads().get(peer()).is_closed());
    served
}

async fn session_of_a_read(served: &Served, session: Session) -> Session {
    let request =
        proto::GetRequest { table: "t".into(), key: "k".into(), session: session.token() };
    let answer = served.client.clone().get(request).await.unwrap().into_inner();
    assert_eq!(answer.row.unwrap().value, "v");
    Session::from_token(&answer.session).unwrap()
}

/// Who reads elsewhere next must not have to wait for what only a closed head would cover.
#[tokio::test]
async fn a_session_names_what_was_spread_of_a_closed_origin() {
    let served = closed().await;
    let elsewhere = Origin::from_bytes([7; 16]);
    let seen = session_of_a_read(&served, Session::default()).await;
    assert_eq!(seen.required_at(elsewhere).get(peer()), Hlc::at_ms(START_MS + 5));
    let own = seen.required_at(elsewhere).get(served.node.origin());
    assert_eq!(own, served.node.heads().get(served.node.origin()));

    // What a client saw at the removed site itself is as good as here: there is nothing to wait for.
    let more: Heads = [(peer(), Hlc::at_ms(START_MS + 3_600_000))].into_iter().collect();
    session_of_a_read(&served, Session::from(more)).await;
}

#[tokio::test]
async fn status_shows_that_it_is_closed_and_no_age() {
    let served = closed().await;
    let peer_report = PeerReport { origin: Some(peer()), site: "nyc".into(), ..<_>::default() };
    let _handle = served.node.reports().add_peer(peer_report);
    let status = served.admin().status(proto::StatusRequest {}).await.unwrap().into_inner();
    let heads = status.node.unwrap().heads;
    let of_peer = heads.iter().find(|head| head.site == "nyc").unwrap();
    assert_eq!((of_peer.closed, of_peer.hlc, of_peer.age_seconds), (true, 0, 0.0));
    assert!(heads.iter().all(|head| head.closed == (head.site == "nyc")));
    assert_eq!(status.peers[0].behind_seconds, None);
}

#[tokio::test]
async fn its_files_are_refused_and_those_of_others_go_on() {
    let served = closed().await;
    let header = proto::DeltaFileHeader {
        cluster: "lastword".into(),
        site: "nyc".into(),
        origin: peer().as_bytes().to_vec().into(),
        ..Default::default()
    };
    let of_nyc = ImportRequest { part: Some(Part::Header(header.clone())), last: true };
    let answer = served.admin().import(tokio_stream::iter([of_nyc])).await;
    refused(answer, Code::FailedPrecondition, "file: the store of site nyc that wrote it was");
    // The cluster is sealed: who is unknown is admitted over a link.
    let stranger = proto::DeltaFileHeader { origin: vec![7; 16].into(), ..header };
    let of_stranger = ImportRequest { part: Some(Part::Header(stranger)), last: true };
    let answer = served.admin().import(tokio_stream::iter([of_stranger])).await;
    refused(answer, Code::FailedPrecondition, "file: the cluster is sealed, and site nyc, which");
    let since = Some(Since::Heads(served.node.heads().to_text()));
    let mut parts =
        served.admin().export(proto::ExportRequest { since }).await.unwrap().into_inner();
    let Some(proto::export_response::Part::Header(header)) =
        parts.message().await.unwrap().unwrap().part
    else {
        panic!("a header");
    };
    assert!(header.sealed);
}
