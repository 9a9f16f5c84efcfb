//! Having an issuer confirm something about the account (`spec/wesh-protocol.md` §7.6).

use dunlin_base::AccountId;
use dunlin_proto::protocol::{
    credential_verification_service_complete_flow as complete,
    credential_verification_service_init_flow as init,
};
use dunlin_wesh::credentials::VERIFICATION_BYTES_MAX;
use dunlin_wesh::engine::{App, CommandError, CredentialError};
use dunlin_wesh::errors::Code;
use tonic::Status;

use super::outside;
use super::status::{coded, invalid, refused, status_of};
use crate::{CallError, NodeHandle};

/// Gets a challenge from the issuer, and answers with the address that the user has to open.
pub(super) async fn init_flow<A: App + Send + 'static>(
    node: &NodeHandle<A>,
    request: init::Request,
) -> Result<init::Reply, Status> {
    account_is_open(node).await?;
    let account = AccountId::from_bytes(&request.public_key)
        .map_err(|error| invalid(format!("public_key: {error}")))?;
    let begun = node.transact(move |ctx, engine, _| {
        engine.begin_verification(ctx, &account, &request.service_url, &request.link)
    });
    let url = begun.await.map_err(|error| status_of(&error))?;
    let (status, reply) = outside::get(&url, VERIFICATION_BYTES_MAX)
        .await
        .map_err(|error| coded(&[Code::ErrInternal, Code::ErrInternal], error))?;
    let answered = node.view(move |_, engine, _| engine.answer_verification(status, &reply));
    let url = answered.await.map_err(|error| status_of(&error))?;
    let secure_url = url.starts_with("https://");
    Ok(init::Reply { url, secure_url })
}

/// Takes what the issuer sent the user's browser to.
pub(super) async fn complete_flow<A: App + Send + 'static>(
    node: &NodeHandle<A>,
    request: complete::Request,
) -> Result<complete::Reply, Status> {
    account_is_open(node).await?;
    let done = node.transact(move |ctx, engine, _| engine.complete_verification(ctx, &request.callback_uri));
    match done.await {
        Ok(credential) => Ok(complete::Reply { identifier: credential.identifier }),
        Err(CallError::Refused(CredentialError::Verification(error))) => Err(refused(&error)),
        Err(error) => Err(status_of(&error)),
    }
}

/// Refuses what needs the account group while that is closed.
pub(super) async fn account_is_open<A: App + Send + 'static>(node: &NodeHandle<A>) -> Result<(), Status> {
    let open = node.view(|_, engine, _| engine.account_is_open()).await;
    open.map_err(|error: CallError<CommandError>| status_of(&error))
}
