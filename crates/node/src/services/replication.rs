//! Having a server carry a group that it cannot read (`spec/wesh-protocol.md` §7.2).
//!
//! The server sees how many entries there are, how long they are and when they come, and which host and device of the
//! group is connected. So that it does not see which groups belong to one account, every group has a token of its own,
//! and a connection of its own (`spec/security.md` S5); account and contact groups never go to a server (D3).

use dunlin_base::GroupId;
use dunlin_base::kdf::sha256;
use dunlin_base::kv::ReadError;
use dunlin_proto::protocol as api;
use dunlin_proto::replication as remote;
use dunlin_wesh::engine::{App, CommandError, Ctx};
use dunlin_wesh::errors::{Code, Coded};
use http::uri::Authority;
use hyper_util::rt::TokioIo;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::groups::{status_in_use, used};
use super::outside::{self, ANSWER_MAX};
use super::status::{coded, invalid, status_of};
use super::stubs::replication::replication_service_client::ReplicationServiceClient;
use crate::{CallError, NodeHandle, tables};

/// Longest token, and longest address of a server.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// What stands before the name of a token in [`tables::NODE`].
const TOKEN_PREFIX: &[u8] = b"replication-token:";

/// Why a token is not used.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(
        "this token was used for another group: a server that sees it twice knows that both groups are of one          account. Obtain one for each group"
    )]
    UsedElsewhere,
}

impl Coded for TokenError {
    fn codes(&self) -> Vec<Code> {
        match self {
            Self::Read(_) => vec![Code::ErrDbRead],
            Self::UsedElsewhere => vec![Code::ErrInvalidInput],
        }
    }
}

/// Registers a group with a server, and tells the group.
pub(super) async fn register<A: App + Send + 'static>(
    node: &NodeHandle<A>,
    request: api::replication_service_register_group::Request,
) -> Result<(), Status> {
    if request.group_pk.is_empty() {
        return Err(invalid("group_pk is needed"));
    }
    let authorization = authorization(&request.token)?;
    let server = server(&request.replication_server)?;
    let around = [Code::ErrInvalidInput];
    let group = used(&around, &request.group_pk)?;
    let replica = node.view(move |_, engine, _| {
        engine.account_is_open()?;
        engine.replica(&group)
    });
    let replica = replica.await.map_err(|error| match &error {
        CallError::Refused(CommandError::WrongKind) => coded(
            &[Code::ErrInvalidInput, Code::ErrGroupInvalidType],
            "only multi-member groups go to a server",
        ),
        error => status_in_use(&around, error),
    })?;
    let (address, token) = (request.replication_server.clone(), request.token);
    let claimed = node.transact(move |ctx, _, _| claim_token(ctx, &address, &token, &group)).await;
    claimed.map_err(|error| status_of(&error))?;
    // What the server was asked is told to the group, also when the caller does not wait for the answer.
    let node = node.clone();
    let registering = tokio::spawn(async move {
        let tls = !node.replicates_in_clear();
        let asked = tokio::time::timeout(ANSWER_MAX, ask(server, tls, authorization, replica)).await;
        asked.unwrap_or_else(|_elapsed| Err("the server has not answered in time".to_owned()))?;
        let noted = node.transact(move |ctx, engine, _| {
            engine.note_replicating(ctx, &group, &request.authentication_url, &request.replication_server)
        });
        if let Err(error) = noted.await {
            tracing::warn!(%error, "a server carries a group that was not told so");
        }
        Ok::<_, String>(())
    });
    let registered = registering.await.unwrap_or_else(|error| Err(error.to_string()));
    registered.map_err(|error| coded(&[Code::ErrServiceReplicationServer], error))
}

fn authorization(token: &str) -> Result<MetadataValue<Ascii>, Status> {
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return Err(invalid("a token is needed"));
    }
    let mut value: MetadataValue<Ascii> =
        format!("bearer {token}").parse().map_err(|_| invalid("the token is none"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn server(address: &str) -> Result<Authority, Status> {
    let authority = address.parse::<Authority>().ok().filter(|authority| authority.port_u16().is_some());
    authority
        .filter(|_| !address.contains('@'))
        .ok_or_else(|| invalid("replication_server has to be a host and a port, such as replica.example:443"))
}

/// Remembers for which group a token is used, and refuses it for another.
fn claim_token(ctx: &mut Ctx<'_, '_>, server: &str, token: &str, group: &GroupId) -> Result<(), TokenError> {
    use dunlin_base::kv::Read as _;
    let name = sha256(&[server.as_bytes(), &[0], token.as_bytes()]);
    let key = [TOKEN_PREFIX, &name].concat();
    match ctx.tx.get(tables::NODE, &key)? {
        Some(of) if of != group.as_bytes() => Err(TokenError::UsedElsewhere),
        Some(_) => Ok(()),
        None => {
            ctx.tx.put(tables::NODE, &key, group.as_bytes());
            Ok(())
        }
    }
}

/// Asks the server on a connection of its own.
async fn ask(
    server: Authority,
    tls: bool,
    authorization: MetadataValue<Ascii>,
    group: api::Group,
) -> Result<(), String> {
    let channel = channel(server, tls).await.map_err(|error| described(&error))?;
    let mut request =
        Request::new(remote::replication_service_replicate_group::Request { group: Some(group) });
    request.metadata_mut().insert("authorization", authorization);
    // Servers answer that it is not well when it is, so the answer tells nothing.
    let asked = ReplicationServiceClient::new(channel).replicate_group(request).await;
    asked
        .map(drop)
        .map_err(|status| format!("the server refuses ({:?}): {}", status.code(), status.message()))
}

async fn channel(server: Authority, tls: bool) -> Result<Channel, tonic::transport::Error> {
    let scheme = if tls { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("http://{server}"))?;
    let endpoint = match format!("{scheme}://{server}").parse() {
        Ok(origin) => endpoint.origin(origin),
        Err(_) => endpoint,
    };
    let connect = tower::service_fn(move |_| {
        let server = server.clone();
        async move { outside::connect(&server, tls, b"h2").await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connect).await
}

/// An error with what lies below it.
fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        text = format!("{text}: {cause}");
        below = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use dunlin_base::SecretKey;
    use dunlin_base::kv::{MemoryStore, Tx};
    use rand_core::OsRng;

    use super::*;

    #[test]
    fn a_token_is_for_one_group_at_one_server() {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        let mut rng = OsRng;
        let mut ctx = Ctx { tx: &mut tx, now: crate::core::now(), rng: &mut rng };
        let [one, other] = [1, 2].map(|seed| GroupId::new(SecretKey::from_seed([seed; 32]).public()));
        assert!(claim_token(&mut ctx, "a:1", "token", &one).is_ok());
        assert!(claim_token(&mut ctx, "a:1", "token", &one).is_ok(), "it may be tried again");
        assert!(matches!(claim_token(&mut ctx, "a:1", "token", &other), Err(TokenError::UsedElsewhere)));
        assert!(claim_token(&mut ctx, "a:1", "another", &other).is_ok());
        assert!(claim_token(&mut ctx, "b:1", "token", &other).is_ok(), "another server does not see it");
    }

    #[test]
    fn a_server_is_a_host_and_a_port() {
        for address in ["replica.example:443", "127.0.0.1:1", "[::1]:1"] {
            assert!(server(address).is_ok(), "{address}");
        }
        for other in ["", "replica.example", "https://replica.example:443", "a@replica.example:1", "a b:1"] {
            assert!(server(other).is_err(), "{other}");
        }
    }
}
