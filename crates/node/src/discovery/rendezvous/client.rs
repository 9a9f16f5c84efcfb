//! A client of one rendezvous server. Each request has a stream of its own.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dunlin_ipfs::multiaddr::Protocol;
use dunlin_ipfs::{Ipfs, Multiaddr, OpenExchangeError, OpenStreamError, PeerId, Scope};
use dunlin_proto::rendezvous::pb::Message;
use dunlin_proto::rendezvous::pb::message::{
    Discover, MessageType, PeerInfo, Register, ResponseStatus, Unregister,
};
use prost::Message as _;

use super::limits::{ADDRESS_BYTES_MAX, DISCOVER_MAX};
use super::{MESSAGE_BYTES_MAX, RENDEZVOUS};
use crate::discovery::driver::{
    ADDRESSES_PER_PEER_MAX, Driver, DriverError, PEERS_PER_ANSWER_MAX, Sighted, SourceKind,
};

/// How long a request may take in all.
const REQUEST_MAX: Duration = Duration::from_secs(20);
/// Names of which a cookie is kept. Beyond that all are forgotten, and the server tells everything again.
const COOKIES_MAX: usize = 4096;
/// Longest cookie that is kept.
const COOKIE_BYTES_MAX: usize = 1024;
/// Longest text of a server that is shown.
const STATUS_TEXT_CHARS_MAX: usize = 200;
/// How long a registration without a lifetime is of interest, and the longest for which one is.
const TTL_DEFAULT: Duration = Duration::from_secs(7200);

/// One rendezvous server.
pub(crate) struct Rendezvous {
    ipfs: Ipfs,
    server: PeerId,
    address: Multiaddr,
    groups: bool,
    cookies: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Rendezvous {
    /// Takes the address of a server, which must end with its peer id. `groups` says whether group topics go
    /// there.
    pub fn new(ipfs: Ipfs, address: Multiaddr, groups: bool) -> Option<Self> {
        let Some(Protocol::P2p(server)) = address.iter().last() else { return None };
        Some(Self { ipfs, server, address, groups, cookies: Mutex::default() })
    }

    /// The addresses that are told to the server: those that reach as far as it is away, so that none of a
    /// private network leaves it.
    fn own_addresses(&self) -> Vec<Vec<u8>> {
        let mut addresses: Vec<_> = self.ipfs.listen_addresses();
        addresses.retain(|address| Scope::of(address) >= Scope::of(&self.address));
        for address in &mut addresses {
            // Who it is, is said beside.
            if address.iter().last() == Some(Protocol::P2p(self.ipfs.peer_id())) {
                address.pop();
            }
        }
        let mut room = ADDRESS_BYTES_MAX;
        let fits = |address: Multiaddr| {
            let bytes = address.to_vec();
            room = room.checked_sub(bytes.len())?;
            Some(bytes)
        };
        addresses.into_iter().take(ADDRESSES_PER_PEER_MAX).map_while(fits).collect()
    }

    async fn ask(&self, request: Message) -> Result<Message, DriverError> {
        let asking = async {
            let mut stream = self.open().await?;
            stream.write_frame(&request.encode_to_vec()).await.map_err(failed)?;
            let answer = stream.read_frame().await.map_err(failed)?;
            Message::decode(answer).map_err(|_| DriverError::Malformed)
        };
        let late = |_| DriverError::Failed("no answer in time".to_owned());
        tokio::time::timeout(REQUEST_MAX, asking).await.map_err(late)?
    }

    async fn open(&self) -> Result<dunlin_ipfs::Exchange, DriverError> {
        let opened = self.ipfs.open_long_exchange(RENDEZVOUS, self.server, MESSAGE_BYTES_MAX).await;
        opened.map_err(|error| match error {
            OpenExchangeError::Open(OpenStreamError::NotConnected(_)) => DriverError::NotConnected,
            error => failed(error),
        })
    }

    fn cookie(&self, name: &str) -> Vec<u8> {
        self.cookies().get(name).cloned().unwrap_or_default()
    }

    fn cookies(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn discover(&self, name: &str, cookie: Vec<u8>) -> Result<Vec<Sighted>, DriverError> {
        let limit = i64::try_from(DISCOVER_MAX).unwrap_or(i64::MAX);
        let request = Message {
            r#type: MessageType::Discover.into(),
            discover: Some(Discover { ns: name.to_owned(), limit, cookie }),
            ..Message::default()
        };
        let answer = self.ask(request).await?.discover_response.ok_or(DriverError::Malformed)?;
        status(answer.status, &answer.status_text)?;
        if answer.cookie.len() <= COOKIE_BYTES_MAX {
            let mut cookies = self.cookies();
            if cookies.len() >= COOKIES_MAX {
                cookies.clear();
            }
            cookies.insert(name.to_owned(), answer.cookie);
        }
        let own = self.ipfs.peer_id();
        let registrations = answer.registrations.into_iter().take(PEERS_PER_ANSWER_MAX);
        let sighted = registrations.filter_map(|registration| self.sighted(registration));
        Ok(sighted.filter(|sighted| sighted.peer != own).collect())
    }

    /// What a registration tells. Addresses that reach less far than the server is away are left out: a server
    /// on the internet does not choose whom this node dials in its own network.
    fn sighted(&self, registration: Register) -> Option<Sighted> {
        let info = registration.peer?;
        let peer = PeerId::from_bytes(&info.id).ok()?;
        let parse = |bytes: Vec<u8>| Multiaddr::try_from(bytes).ok();
        let addresses = info.addrs.into_iter().take(ADDRESSES_PER_PEER_MAX).filter_map(parse);
        let reach = Scope::of(&self.address);
        let addresses = addresses.filter(|address| Scope::of(address) >= reach).collect();
        let ttl = u64::try_from(registration.ttl).ok().filter(|ttl| *ttl > 0).map(Duration::from_secs);
        Some(Sighted { peer, addresses, ttl: ttl.unwrap_or(TTL_DEFAULT).min(TTL_DEFAULT) })
    }
}

#[tonic::async_trait]
impl Driver for Rendezvous {
    fn kind(&self) -> SourceKind {
        SourceKind::Rendezvous
    }

    fn place(&self) -> String {
        self.address.to_string()
    }

    fn server(&self) -> Option<PeerId> {
        Some(self.server)
    }

    fn takes_groups(&self) -> bool {
        self.groups
    }

    async fn advertise(&self, name: &str, ttl: Duration) -> Result<Duration, DriverError> {
        let addrs = self.own_addresses();
        if addrs.is_empty() {
            return Err(DriverError::NoAddress);
        }
        let peer = Some(PeerInfo { id: self.ipfs.peer_id().to_bytes(), addrs });
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let request = Message {
            r#type: MessageType::Register.into(),
            register: Some(Register { ns: name.to_owned(), peer, ttl }),
            ..Message::default()
        };
        let answer = self.ask(request).await?.register_response.ok_or(DriverError::Malformed)?;
        status(answer.status, &answer.status_text)?;
        Ok(u64::try_from(answer.ttl).ok().filter(|ttl| *ttl > 0).map_or(TTL_DEFAULT, Duration::from_secs))
    }

    async fn find(&self, name: &str, all: bool) -> Result<Vec<Sighted>, DriverError> {
        let cookie = if all { Vec::new() } else { self.cookie(name) };
        let with_cookie = !cookie.is_empty();
        match self.discover(name, cookie).await {
            Err(DriverError::Refused { status, .. })
                if with_cookie && status == i32::from(ResponseStatus::EInvalidCookie) =>
            {
                // The server has started anew.
                self.discover(name, Vec::new()).await
            }
            outcome => outcome,
        }
    }

    async fn withdraw(&self, name: &str) -> Result<(), DriverError> {
        let request = Message {
            r#type: MessageType::Unregister.into(),
            unregister: Some(Unregister { ns: name.to_owned(), id: self.ipfs.peer_id().to_bytes() }),
            ..Message::default()
        };
        // There is no answer to this one.
        let mut stream = self.open().await?;
        stream.write_frame(&request.encode_to_vec()).await.map_err(failed)?;
        stream.close().await.map_err(failed)
    }
}

fn failed(error: impl std::error::Error) -> DriverError {
    DriverError::Failed(error.to_string())
}

fn status(status: i32, text: &str) -> Result<(), DriverError> {
    if status == i32::from(ResponseStatus::Ok) {
        return Ok(());
    }
    // A stranger chose the text, and it may be shown on a terminal.
    let text = text.chars().filter(|char| !char.is_control()).take(STATUS_TEXT_CHARS_MAX).collect();
    Err(DriverError::Refused { status, text })
}
