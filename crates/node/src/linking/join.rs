//! Linking a device, on the side that has no account yet: the shell around
//! [`Joining`](dunlin_wesh::linking::Joining).

use std::sync::Arc;

use dunlin_base::Time;
use dunlin_base::kv::{CommitError, Durability, Store, Tx};
use dunlin_ipfs::multiaddr::Protocol;
use dunlin_ipfs::{
    Config, DialError, Exchange, Ipfs, Multiaddr, NoBlocks, OpenExchangeError, OpenStreamError,
    ReadFrameError,
};
use dunlin_wesh::archive::{Import, ImportArchiveError, Imported};
use dunlin_wesh::linking::{Card, Code, JoinError, Joining, LinkAction, LinkText, PROTOCOL};
use dunlin_wesh::profile::Profile;
use rand_core::{OsRng, RngCore};
use zeroize::Zeroizing;

use super::{Clock, ephemeral};
use crate::core::CoreError;
use crate::handle::identity;
use crate::perform::{base_peer, ipfs_peer};

/// An account that came onto this device.
#[derive(Debug)]
pub struct Joined {
    /// What the old device said of it.
    pub card: Card,
    /// What came with it.
    pub imported: Imported,
    /// Where the old device is reached, with its peer id.
    pub addresses: Vec<Multiaddr>,
}

/// Why an account did not come onto this device. The store holds none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinAccountError {
    /// There is an account in this store.
    #[error(
        "there is an account here already, and a device has one: use an empty directory, or move this one away first"
    )]
    AccountExists,
    /// The string was made on this device.
    #[error("this link was made on this very device: use it on another one, in an empty directory")]
    OwnLink,
    /// Nothing in the string can be dialled.
    #[error("the link names no address at which this node could reach the other device")]
    NoAddress,
    /// The other device does not answer.
    #[error(
        "the other device cannot be reached ({0}): see that it is on and that both are in one network, and that the \
         command there still shows the link"
    )]
    Unreachable(#[source] DialError),
    /// Its time is over.
    #[error("the link has expired: make a new one on the other device, dunlin device link")]
    Expired,
    /// The conversation with the other device came to nothing.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// What the other device handed over is no account.
    #[error("what the other device handed over is not whole: {0}")]
    Archive(#[source] ImportArchiveError),
    /// The network cannot be used.
    #[error("the network cannot be used: {0}")]
    Network(#[from] dunlin_ipfs::StartError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] CoreError),
}

/// What the new device learns on the way.
#[derive(Debug)]
pub enum JoinNews<'n> {
    /// The code to compare, and to be typed on the other device.
    Code(Code),
    /// What account it is, before anything of it is stored.
    Card(&'n Card),
}

/// Takes an account over from the device that offers `link`, into a store that holds none.
///
/// The account is stored by one commit, so whatever ends this leaves none or a whole one.
///
/// # Errors
/// [`JoinAccountError`].
pub async fn join_account(
    store: Arc<dyn Store>,
    link: LinkText,
    tell: impl FnMut(JoinNews<'_>),
) -> Result<Joined, JoinAccountError> {
    expect_empty(&*store)?;
    let mut config = Config::new(identity(&*store)?, Arc::new(NoBlocks));
    config.listen = Vec::new();
    let (ipfs, mut events) = Ipfs::start(config).await?;
    // Nobody else is met, so nothing of it matters.
    let draining = tokio::spawn(async move { while events.next().await.is_some() {} });
    let joined = join_over(&ipfs, &*store, link, tell).await;
    ipfs.shutdown().await;
    draining.abort();
    joined
}

/// Refuses a store with an account, changing nothing.
fn expect_empty(store: &dyn Store) -> Result<(), JoinAccountError> {
    let mut tx = Tx::new(store);
    match Import::begin(&mut tx, Profile::default()) {
        Ok(_) => Ok(()),
        Err(ImportArchiveError::Keys(dunlin_wesh::keys::ImportError::AccountExists)) => {
            Err(JoinAccountError::AccountExists)
        }
        Err(ImportArchiveError::Read(error)) => Err(JoinAccountError::Store(error.into())),
        Err(error) => Err(JoinAccountError::Archive(error)),
    }
}

async fn join_over(
    ipfs: &Ipfs,
    store: &dyn Store,
    link: LinkText,
    tell: impl FnMut(JoinNews<'_>),
) -> Result<Joined, JoinAccountError> {
    let (Some(own), Some(peer)) = (base_peer(&ipfs.peer_id()), ipfs_peer(&link.peer)) else {
        return Err(JoinAccountError::NoAddress);
    };
    if own == link.peer {
        return Err(JoinAccountError::OwnLink);
    }
    let addresses = link.addresses.iter().filter_map(|bytes| Multiaddr::try_from(bytes.clone()).ok());
    let addresses: Vec<_> = addresses.map(|address| address.with(Protocol::P2p(peer))).collect();
    if addresses.is_empty() {
        return Err(JoinAccountError::NoAddress);
    }
    let clock = Clock::start();
    let expires = link.expires;
    if let Err(error) = ipfs.dial_peer(peer, addresses.clone()).await {
        return Err(expired_or(expires, JoinAccountError::Unreachable(error)));
    }
    let exchange = match ipfs.open_exchange(PROTOCOL, peer).await {
        Ok(exchange) => exchange,
        Err(OpenExchangeError::Open(OpenStreamError::Unsupported)) => {
            return Err(expired_or(expires, JoinError::NotOffered.into()));
        }
        Err(error) => {
            tracing::debug!(%error, "no stream to the other device");
            return Err(JoinError::Gone.into());
        }
    };
    let mut random = [0; 32];
    OsRng.fill_bytes(&mut random);
    let joining = Joining::new(link, own, ephemeral(), random, clock.now());
    let taken = converse(exchange, joining, clock, store, tell).await;
    let (card, imported) = taken.map_err(|error| match error {
        JoinAccountError::Join(JoinError::NotOffered) => expired_or(expires, error),
        error => error,
    })?;
    Ok(Joined { card, imported, addresses })
}

/// Names the time as the cause when it is over.
fn expired_or(expires: Time, error: JoinAccountError) -> JoinAccountError {
    if crate::core::now() >= expires { JoinAccountError::Expired } else { error }
}

/// Moves frames until the account is stored or it is over.
async fn converse(
    exchange: Exchange,
    mut joining: Joining,
    clock: Clock,
    store: &dyn Store,
    mut tell: impl FnMut(JoinNews<'_>),
) -> Result<(Card, Imported), JoinAccountError> {
    let (mut reader, mut writer) = exchange.split();
    let (mut card, mut archive) = (None, Zeroizing::new(Vec::new()));
    let mut imported = None;
    let mut failed: Option<JoinError> = None;
    loop {
        while let Some(action) = joining.poll_action() {
            match action {
                LinkAction::Send(frame) => {
                    if writer.write_frame(&frame).await.is_err() && failed.is_none() {
                        failed = joining.handle_closed().err();
                    }
                }
                LinkAction::Show(code) => tell(JoinNews::Code(code)),
                LinkAction::Card(said) => {
                    tell(JoinNews::Card(&said));
                    card = Some(said);
                }
                LinkAction::Archive(bytes) => archive.extend_from_slice(&bytes),
                LinkAction::Store => {
                    let profile = card.as_ref().map(|card: &Card| card.profile).unwrap_or_default();
                    imported = Some(import(store, profile, &archive)?);
                    joining.stored();
                }
                LinkAction::Close => {
                    // What was written last is on its way, and nobody needs to know that it came.
                    let _ = writer.close().await;
                    let _ =
                        tokio::time::timeout(std::time::Duration::from_secs(2), reader.read_frame()).await;
                    return match (card, imported, failed) {
                        (Some(card), Some(imported), _) => Ok((card, imported)),
                        (_, _, failed) => Err(failed.unwrap_or(JoinError::Gone).into()),
                    };
                }
                LinkAction::HandOver => {}
            }
        }
        let due = joining.timeout();
        let outcome = tokio::select! {
            frame = reader.read_frame() => match frame {
                Ok(frame) => joining.handle_frame(clock.now(), &frame),
                Err(ReadFrameError::Silent) => Err(JoinError::Late),
                Err(_) => match joining.handle_closed() {
                    Ok(()) => continue,
                    Err(error) => return Err(error.into()),
                },
            },
            () = clock.sleep_until(due) => joining.handle_timeout(clock.now()),
        };
        if let Err(error) = outcome {
            failed = failed.or(Some(error));
            if error == JoinError::Late {
                return Err(error.into());
            }
        }
    }
}

/// Stores what came, all of it by one commit.
fn import(store: &dyn Store, profile: Profile, archive: &[u8]) -> Result<Imported, JoinAccountError> {
    let mut tx = Tx::new(store);
    let imported = Import::begin(&mut tx, profile)
        .and_then(|mut import| {
            import.feed(&mut tx, archive)?;
            import.finish(&mut tx, &mut OsRng)
        })
        .map_err(JoinAccountError::Archive)?;
    let committed: Result<(), CommitError> = store.commit(tx.into_batch(), Durability::Synced);
    committed.map_err(|error| JoinAccountError::Store(error.into()))?;
    Ok(imported)
}
