//! What asks servers that the caller names: issuers of credentials and replication servers, here on this machine.

use std::sync::{Arc, Mutex};

use dunlin_base::SecretKey;
use dunlin_node::rpc::replication::replication_service_server::{
    ReplicationService, ReplicationServiceServer,
};
use dunlin_proto::protocol as api;
use dunlin_proto::replication as remote;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::served::{Served, codes, next, soon};

/// The name of the issuer whose seed is zero.
const ISSUER: &str = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
const LINK: &str = "https://berty.tech/id#contact/abc";

#[tokio::test]
async fn an_issuer_confirms_something_about_the_account() {
    let s = Served::start().await;
    let (service_url, asked) =
        issuer("HTTP/1.1 200 OK\r\ncontent-length: 33\r\n\r\n{\"challenge\":\"AAECAwQFBgcICQ==\"}\n").await;
    let public_key = s.configuration().await.account_pk;
    let request = api::credential_verification_service_init_flow::Request {
        service_url: service_url.clone(),
        public_key,
        link: LINK.to_owned(),
    };
    let reply = s.client().credential_verification_service_init_flow(request).await.unwrap().into_inner();
    assert!(
        reply
            .url
            .starts_with(&format!("{service_url}//authenticate?&challenge=AAECAwQFBgcICQ==&challenge_sig="))
    );
    assert!(!reply.secure_url, "it is not encrypted");
    let asked = asked.lock().unwrap().clone();
    let [line] = &asked[..] else { panic!("{asked:?}") };
    let expected = "GET //challenge?berty_id=https%3A%2F%2Fberty.tech%2Fid%23contact%2Fabc&redirect_uri=berty%3A%2F%2Fvc&state=";
    let rest = line.strip_prefix(expected).unwrap_or_else(|| panic!("{line}"));
    let state = rest.split_once(' ').unwrap().0;

    let other = format!("berty://vc/proof?state=other&credentials={}", credential());
    let complete = api::credential_verification_service_complete_flow::Request { callback_uri: other };
    let refused = s.client().credential_verification_service_complete_flow(complete).await.unwrap_err();
    assert_eq!(codes(&refused), [888, 100]);
    let callback_uri = format!("berty://vc/proof?state={state}&credentials={}", credential());
    let complete = api::credential_verification_service_complete_flow::Request { callback_uri };
    let reply =
        s.client().credential_verification_service_complete_flow(complete).await.unwrap().into_inner();
    assert_eq!(reply.identifier, "tel:+33123456789");

    for (filter_identifier, count) in [("", 1), ("tel:+33123456789", 1), ("tel:+1", 0)] {
        let list = api::verified_credentials_list::Request {
            filter_identifier: filter_identifier.to_owned(),
            exclude_expired: true,
            ..Default::default()
        };
        let mut list = s.client().verified_credentials_list(list).await.unwrap().into_inner();
        let mut found = Vec::new();
        while let Some(reply) = list.message().await.unwrap() {
            found.push(reply.credential.unwrap());
        }
        assert_eq!(found.len(), count, "{filter_identifier}");
        assert!(found.iter().all(|credential| credential.issuer == ISSUER));
    }
    s.stop().await;
}

#[tokio::test]
async fn nobody_is_asked_but_the_issuer_that_was_named() {
    let s = Served::start().await;
    let (elsewhere, asked_elsewhere) = issuer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let redirect = format!("HTTP/1.1 302 Found\r\nlocation: {elsewhere}/x\r\ncontent-length: 0\r\n\r\n");
    let (redirecting, _) = issuer(&redirect).await;
    let (endless, _) = issuer(&format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(100_000))).await;
    let public_key = s.configuration().await.account_pk;
    let services = [
        redirecting,
        endless,
        "ftp://127.0.0.1".to_owned(),
        "nowhere".to_owned(),
        "http://127.0.0.1:1".to_owned(),
    ];
    for service_url in services {
        let request = api::credential_verification_service_init_flow::Request {
            service_url: service_url.clone(),
            public_key: public_key.clone(),
            link: LINK.to_owned(),
        };
        let refused = soon(s.client().credential_verification_service_init_flow(request)).await.unwrap_err();
        assert_eq!(codes(&refused), [888, 888], "{service_url}: {refused}");
    }
    assert!(asked_elsewhere.lock().unwrap().is_empty());
    s.stop().await;
}

#[tokio::test]
async fn a_group_goes_to_a_server_without_its_secret_and_is_told_so() {
    let s = Served::start_as(|config| config.replication_in_clear = true).await;
    let (address, server) = replication_server().await;
    let group = s.group().await;
    let other = s.group().await;
    let account = s.configuration().await.account_group_pk;
    let events =
        api::group_metadata_list::Request { group_pk: group.clone(), since_now: true, ..Default::default() };
    let mut events = s.client().group_metadata_list(events).await.unwrap().into_inner();
    let register =
        |group_pk: &[u8], token: &str, server: &str| api::replication_service_register_group::Request {
            group_pk: group_pk.to_vec(),
            token: token.to_owned(),
            authentication_url: "https://auth.example".to_owned(),
            replication_server: server.to_owned(),
        };
    s.client().replication_service_register_group(register(&group, "one", &address)).await.unwrap();
    let event = next(&mut events).await;
    assert_eq!(event.metadata.unwrap().event_type(), api::EventType::GroupReplicating);
    let told = api::GroupReplicating::decode(&*event.event).unwrap();
    assert_eq!(
        (told.authentication_url.as_str(), &told.replication_server),
        ("https://auth.example", &address)
    );
    {
        let asked = server.asked.lock().unwrap();
        let [(authorization, sent)] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!(authorization, "bearer one");
        assert_eq!(sent.public_key, group);
        let lengths = [&sent.secret, &sent.secret_sig, &sent.sign_pub, &sent.link_key, &sent.link_key_sig]
            .map(Vec::len);
        assert_eq!((lengths, sent.group_type), ([0, 0, 32, 32, 64], 0));
    }

    let short = b"short".as_slice();
    let rows: Vec<(api::replication_service_register_group::Request, &[i32])> = vec![
        (register(&[], "two", &address), &[100]),
        (register(&group, "", &address), &[100]),
        (register(&group, "two", ""), &[100]),
        (register(&group, "two", "https://replica.example/"), &[100]),
        (register(short, "two", &address), &[100, 1310]),
        (register(&account, "two", &address), &[100, 1305]),
        (register(&other, "one", &address), &[100]),
        (register(&other, "refuse me", &address), &[4101]),
        (register(&other, "three", "127.0.0.1:1"), &[4101]),
    ];
    for (request, expected) in rows {
        let refused = soon(s.client().replication_service_register_group(request.clone())).await.unwrap_err();
        assert_eq!(codes(&refused), expected, "{request:?}: {refused}");
    }
    let asked = server.asked.lock().unwrap().len();
    assert_eq!(asked, 2, "what is refused here does not go to the server");
    s.stop().await;
}

/// `spec/security.md` S5.
#[tokio::test]
async fn replica_tokens_go_over_tls_alone() {
    let s = Served::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let listening = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut first = vec![0; 4096];
        let length = stream.read(&mut first).await.unwrap();
        first.truncate(length);
        first
    });
    let request = api::replication_service_register_group::Request {
        group_pk: s.group().await,
        token: "a token that nobody may see".to_owned(),
        authentication_url: String::new(),
        replication_server: address,
    };
    let refused = soon(s.client().replication_service_register_group(request)).await.unwrap_err();
    assert_eq!(codes(&refused), [4101], "{refused}");
    if !refused.message().contains("no certificate authority") {
        let first = soon(listening).await.unwrap();
        assert_eq!(first[0], 0x16, "a handshake of TLS");
        assert!(!first.windows(5).any(|part| part == b"token"));
    }
    s.stop().await;
}

/// Answers every request with the same, and keeps the first line of each.
async fn issuer(answer: &str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (kept, answer) = (asked.clone(), answer.to_owned());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
            kept.lock().unwrap().push(line);
            // Whoever has enough does not read on.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, asked)
}

/// A credential, as the issuer writes it.
fn credential() -> String {
    let part = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
    let claims = format!(
        r#"{{"iss":"{ISSUER}","jti":"{LINK}","sub":"tel:+33123456789","nbf":1600000000,"exp":4900000000}}"#
    );
    let signed = format!("{}.{}", part(r#"{"alg":"EdDSA"}"#), part(&claims));
    let signature = SecretKey::from_seed([0; 32]).sign(signed.as_bytes());
    let token = format!("{signed}.{}", data_encoding::BASE64URL_NOPAD.encode(signature.as_bytes()));
    data_encoding::BASE64URL_NOPAD.encode(token.as_bytes())
}

/// A server that carries whatever it is asked to.
#[derive(Clone, Default)]
struct Replica {
    asked: Arc<Mutex<Vec<(String, api::Group)>>>,
}

async fn replication_server() -> (String, Replica) {
    let replica = Replica::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Server::builder().add_service(ReplicationServiceServer::new(replica.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, replica)
}

#[tonic::async_trait]
impl ReplicationService for Replica {
    async fn replicate_group(
        &self,
        request: Request<remote::replication_service_replicate_group::Request>,
    ) -> Result<Response<remote::replication_service_replicate_group::Reply>, Status> {
        let authorization = request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
        let refuses = authorization.contains("refuse");
        self.asked.lock().unwrap().push((authorization, request.into_inner().group.unwrap()));
        if refuses {
            return Err(Status::permission_denied("no"));
        }
        // As the existing server does, although all is well.
        Ok(Response::new(remote::replication_service_replicate_group::Reply { ok: false }))
    }

    async fn replicate_global_stats(
        &self,
        _: Request<remote::replicate_global_stats::Request>,
    ) -> Result<Response<remote::replicate_global_stats::Reply>, Status> {
        Err(Status::permission_denied("no"))
    }

    async fn replicate_group_stats(
        &self,
        _: Request<remote::replicate_group_stats::Request>,
    ) -> Result<Response<remote::replicate_group_stats::Reply>, Status> {
        Err(Status::permission_denied("no"))
    }
}
