//! What a rendezvous server remembers, as a value: who registered where, and until when.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_base::{Span, Time};
use dunlin_ipfs::PeerId;
use dunlin_proto::rendezvous::pb::Message;
use dunlin_proto::rendezvous::pb::message::{
    Discover, DiscoverResponse, DiscoverSubscribeResponse, MessageType, PeerInfo, Register, RegisterResponse,
    ResponseStatus, Unregister,
};
use sha2::{Digest as _, Sha256};

use super::limits::{ADDRESS_BYTES_MAX, DISCOVER_MAX, NAMESPACE_CHARS_MAX};

/// Longest lifetime of a registration, in seconds.
const TTL_MAX: i64 = 72 * 3600;
/// Lifetime of one that names none.
const TTL_DEFAULT: i64 = 2 * 3600;
/// Registrations of one peer.
pub(super) const REGISTRATIONS_PER_PEER_MAX: usize = 1000;
/// Memory for all registrations together, in bytes of names and addresses: the size at which a small server is
/// still small. When it is full, new ones are refused and those that are there stay until they run out.
pub(super) const MEMORY_MAX: usize = 64 * 1024 * 1024;
/// What a registration costs beside its bytes.
const OVERHEAD: usize = 512;
/// Bytes of a cookie that prove that it is ours and of this namespace.
const COOKIE_PROOF: usize = 8;

struct Registration {
    peer: PeerId,
    addresses: Vec<Vec<u8>>,
    expires: Time,
}

/// All registrations.
pub(super) struct Registry {
    /// Makes cookies of an earlier life invalid.
    secret: [u8; 16],
    counter: u64,
    memory: usize,
    memory_max: usize,
    /// By namespace, in the order in which they came.
    namespaces: BTreeMap<String, BTreeMap<u64, Registration>>,
    /// By peer, where in each namespace.
    peers: BTreeMap<PeerId, BTreeMap<String, u64>>,
    expiries: BTreeSet<(Time, u64, String)>,
}

impl Registry {
    pub fn new(secret: [u8; 16], memory_max: usize) -> Self {
        Self {
            secret,
            counter: 0,
            memory: 0,
            memory_max,
            namespaces: BTreeMap::new(),
            peers: BTreeMap::new(),
            expiries: BTreeSet::new(),
        }
    }

    /// Handles a request of a connected peer. `None` means that there is no answer; the stream stays open.
    pub fn handle(
        &mut self,
        now: Time,
        from: PeerId,
        request: Message,
    ) -> Result<Option<Message>, Unexpected> {
        self.expire(now);
        match MessageType::try_from(request.r#type) {
            Ok(MessageType::Register) => {
                let response = self.register(now, from, request.register.unwrap_or_default());
                let response = response.unwrap_or_else(|refusal| RegisterResponse {
                    status: refusal.0.into(),
                    status_text: refusal.1.to_owned(),
                    ttl: 0,
                });
                Ok(Some(Message {
                    r#type: MessageType::RegisterResponse.into(),
                    register_response: Some(response),
                    ..Message::default()
                }))
            }
            Ok(MessageType::Unregister) => {
                self.unregister(from, request.unregister.unwrap_or_default());
                Ok(None)
            }
            Ok(MessageType::Discover) => {
                let response = self.discover(now, request.discover.unwrap_or_default());
                let response = response.unwrap_or_else(|refusal| DiscoverResponse {
                    status: refusal.0.into(),
                    status_text: refusal.1.to_owned(),
                    ..DiscoverResponse::default()
                });
                Ok(Some(Message {
                    r#type: MessageType::DiscoverResponse.into(),
                    discover_response: Some(response),
                    ..Message::default()
                }))
            }
            Ok(MessageType::DiscoverSubscribe) => Ok(Some(Message {
                r#type: MessageType::DiscoverSubscribeResponse.into(),
                discover_subscribe_response: Some(DiscoverSubscribeResponse {
                    status: ResponseStatus::EInternalError.into(),
                    status_text: "subscription type not found".to_owned(),
                    ..DiscoverSubscribeResponse::default()
                }),
                ..Message::default()
            })),
            _ => Err(Unexpected),
        }
    }

    /// How many registrations there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.expiries.len()
    }

    fn register(&mut self, now: Time, from: PeerId, request: Register) -> Result<RegisterResponse, Refusal> {
        use ResponseStatus as Status;
        let namespace = request.ns;
        check_namespace(&namespace)?;
        if namespace.is_empty() {
            return Err(Refusal(Status::EInvalidNamespace, "unspecified namespace"));
        }
        let Some(info) = request.peer else {
            return Err(Refusal(Status::EInvalidPeerInfo, "missing peer info"));
        };
        if !info.id.is_empty() && PeerId::from_bytes(&info.id).ok() != Some(from) {
            return Err(Refusal(Status::EInvalidPeerInfo, "the peer id is not the sender's"));
        }
        let address_bytes: usize = info.addrs.iter().map(Vec::len).sum();
        if info.addrs.is_empty() || address_bytes > ADDRESS_BYTES_MAX {
            return Err(Refusal(Status::EInvalidPeerInfo, "no address, or too many"));
        }
        let ttl = match request.ttl {
            0 => TTL_DEFAULT,
            ttl if (0..=TTL_MAX).contains(&ttl) => ttl,
            _ => return Err(Refusal(Status::EInvalidTtl, "bad ttl")),
        };
        // One that is renewed makes room for itself.
        self.remove(from, &namespace);
        if self.peers.get(&from).is_some_and(|own| own.len() >= REGISTRATIONS_PER_PEER_MAX) {
            return Err(Refusal(Status::ENotAuthorized, "too many registrations"));
        }
        let registration = Registration {
            peer: from,
            addresses: info.addrs,
            expires: now + Span::from_secs(u64::try_from(ttl).unwrap_or_default()),
        };
        let cost = cost(&namespace, &registration);
        if self.memory + cost > self.memory_max {
            return Err(Refusal(Status::EUnavailable, "the server is full"));
        }
        self.memory += cost;
        self.counter += 1;
        self.expiries.insert((registration.expires, self.counter, namespace.clone()));
        self.peers.entry(from).or_default().insert(namespace.clone(), self.counter);
        self.namespaces.entry(namespace).or_default().insert(self.counter, registration);
        Ok(RegisterResponse { status: Status::Ok.into(), status_text: String::new(), ttl })
    }

    fn unregister(&mut self, from: PeerId, request: Unregister) {
        if request.id.is_empty() || PeerId::from_bytes(&request.id).ok() == Some(from) {
            self.remove(from, &request.ns);
        }
    }

    fn discover(&self, now: Time, request: Discover) -> Result<DiscoverResponse, Refusal> {
        check_namespace(&request.ns)?;
        let after = match request.cookie.as_slice() {
            [] => 0,
            cookie => self
                .read_cookie(&request.ns, cookie)
                .ok_or(Refusal(ResponseStatus::EInvalidCookie, "bad cookie"))?,
        };
        let limit = usize::try_from(request.limit).ok().filter(|limit| (1..DISCOVER_MAX).contains(limit));
        let newer = self.namespaces.get(&request.ns);
        let newer = newer.into_iter().flat_map(|all| all.range(after + 1..));
        let mut last = after;
        let mut registrations = Vec::new();
        for (counter, registration) in newer.take(limit.unwrap_or(DISCOVER_MAX)) {
            last = *counter;
            let left = registration.expires.since(now).as_millis() / 1000;
            registrations.push(Register {
                ns: request.ns.clone(),
                peer: Some(PeerInfo {
                    id: registration.peer.to_bytes(),
                    addrs: registration.addresses.clone(),
                }),
                ttl: i64::try_from(left).unwrap_or(i64::MAX),
            });
        }
        let cookie = self.cookie(&request.ns, last);
        Ok(DiscoverResponse {
            registrations,
            cookie,
            status: ResponseStatus::Ok.into(),
            status_text: String::new(),
        })
    }

    fn remove(&mut self, peer: PeerId, namespace: &str) {
        let Some(own) = self.peers.get_mut(&peer) else { return };
        let Some(counter) = own.remove(namespace) else { return };
        if own.is_empty() {
            self.peers.remove(&peer);
        }
        let Some(all) = self.namespaces.get_mut(namespace) else { return };
        if let Some(registration) = all.remove(&counter) {
            self.memory -= cost(namespace, &registration);
            self.expiries.remove(&(registration.expires, counter, namespace.to_owned()));
        }
        if all.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    fn expire(&mut self, now: Time) {
        while let Some((expires, counter, namespace)) = self.expiries.first().cloned()
            && expires <= now
        {
            let registration = self.namespaces.get(&namespace).and_then(|all| all.get(&counter));
            match registration.map(|registration| registration.peer) {
                Some(peer) => self.remove(peer, &namespace),
                None => drop(self.expiries.pop_first()),
            }
        }
    }

    fn cookie(&self, namespace: &str, counter: u64) -> Vec<u8> {
        [counter.to_be_bytes(), self.proof(namespace, counter)].concat()
    }

    fn read_cookie(&self, namespace: &str, cookie: &[u8]) -> Option<u64> {
        let (counter, proof) = cookie.split_first_chunk::<8>()?;
        let counter = u64::from_be_bytes(*counter);
        (counter < u64::MAX && self.proof(namespace, counter) == proof).then_some(counter)
    }

    fn proof(&self, namespace: &str, counter: u64) -> [u8; COOKIE_PROOF] {
        let hash = Sha256::new()
            .chain_update(self.secret)
            .chain_update(counter.to_be_bytes())
            .chain_update(namespace)
            .finalize();
        let mut proof = [0; COOKIE_PROOF];
        proof.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        proof
    }
}

/// A message that is no request: the stream ends.
#[derive(Debug)]
pub(super) struct Unexpected;

struct Refusal(ResponseStatus, &'static str);

fn check_namespace(namespace: &str) -> Result<(), Refusal> {
    if namespace.len() > NAMESPACE_CHARS_MAX {
        return Err(Refusal(ResponseStatus::EInvalidNamespace, "namespace too long"));
    }
    Ok(())
}

fn cost(namespace: &str, registration: &Registration) -> usize {
    // The name is kept three times.
    OVERHEAD
        + 3 * namespace.len()
        + registration.addresses.iter().map(|address| address.len() + 24).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(1_700_000_000);

    fn registry() -> Registry {
        Registry::new([7; 16], MEMORY_MAX)
    }

    fn register(registry: &mut Registry, now: Time, peer: PeerId, namespace: &str) -> ResponseStatus {
        register_as(registry, now, peer, namespace, &peer.to_bytes(), vec![vec![4, 127, 0, 0, 1]], 7200)
    }

    fn register_as(
        registry: &mut Registry,
        now: Time,
        peer: PeerId,
        namespace: &str,
        id: &[u8],
        addrs: Vec<Vec<u8>>,
        ttl: i64,
    ) -> ResponseStatus {
        let request = Message {
            r#type: MessageType::Register.into(),
            register: Some(Register {
                ns: namespace.to_owned(),
                peer: Some(PeerInfo { id: id.to_vec(), addrs }),
                ttl,
            }),
            ..Message::default()
        };
        let answer = registry.handle(now, peer, request).unwrap().unwrap();
        answer.register_response.unwrap().status()
    }

    fn discover(
        registry: &mut Registry,
        now: Time,
        namespace: &str,
        limit: i64,
        cookie: &[u8],
    ) -> DiscoverResponse {
        let request = Message {
            r#type: MessageType::Discover.into(),
            discover: Some(Discover { ns: namespace.to_owned(), limit, cookie: cookie.to_vec() }),
            ..Message::default()
        };
        registry.handle(now, PeerId::random(), request).unwrap().unwrap().discover_response.unwrap()
    }

    #[test]
    fn a_registration_is_found_until_it_runs_out_or_is_taken_back() {
        let mut registry = registry();
        let (ann, ben) = (PeerId::random(), PeerId::random());
        register(&mut registry, NOW, ann, "birds");
        register(&mut registry, NOW + Span::from_secs(60), ben, "birds");
        let there = discover(&mut registry, NOW + Span::from_secs(60), "birds", 0, &[]);
        assert_eq!(there.registrations.len(), 2);
        assert_eq!(there.registrations[0].ttl, 7140);
        assert_eq!(discover(&mut registry, NOW, "fish", 0, &[]).registrations, []);

        let later = NOW + Span::from_secs(7200);
        let left = discover(&mut registry, later, "birds", 0, &[]);
        assert_eq!(left.registrations[0].peer.as_ref().unwrap().id, ben.to_bytes());
        let unregister = Message {
            r#type: MessageType::Unregister.into(),
            unregister: Some(Unregister { ns: "birds".to_owned(), id: ben.to_bytes() }),
            ..Message::default()
        };
        assert!(registry.handle(later, ann, unregister.clone()).unwrap().is_none());
        assert_eq!(registry.len(), 1, "nobody takes back what another registered");
        assert!(registry.handle(later, ben, unregister).unwrap().is_none());
        assert_eq!((registry.len(), registry.memory), (0, 0));
        assert!(registry.namespaces.is_empty() && registry.peers.is_empty());
    }

    #[test]
    fn a_cookie_leads_to_what_is_new() {
        let mut registry = registry();
        let peers: Vec<_> = (0..5).map(|_| PeerId::random()).collect();
        for peer in &peers {
            register(&mut registry, NOW, *peer, "birds");
        }
        let first = discover(&mut registry, NOW, "birds", 3, &[]);
        let rest = discover(&mut registry, NOW, "birds", 3, &first.cookie);
        assert_eq!((first.registrations.len(), rest.registrations.len()), (3, 2));
        assert_eq!(discover(&mut registry, NOW, "birds", 3, &rest.cookie).registrations, []);
        register(&mut registry, NOW, peers[0], "birds");
        assert_eq!(discover(&mut registry, NOW, "birds", 3, &rest.cookie).registrations.len(), 1);

        let elsewhere = discover(&mut registry, NOW, "fish", 3, &rest.cookie);
        assert_eq!(elsewhere.status(), ResponseStatus::EInvalidCookie);
        let mut other = Registry::new([8; 16], MEMORY_MAX);
        let anew = discover(&mut other, NOW, "birds", 3, &rest.cookie);
        assert_eq!(anew.status(), ResponseStatus::EInvalidCookie);
        for length in 0..20 {
            discover(&mut registry, NOW, "birds", 3, &vec![0xff; length]);
        }
    }

    #[test]
    fn registrations_beyond_the_limits_are_refused() {
        use ResponseStatus as Status;
        let mut registry = registry();
        let (peer, other) = (PeerId::random(), PeerId::random());
        let address = vec![vec![4, 127, 0, 0, 1]];
        let mut try_it = |namespace: &str, id: &[u8], addresses: Vec<Vec<u8>>, ttl| {
            register_as(&mut registry, NOW, peer, namespace, id, addresses, ttl)
        };
        let own = peer.to_bytes();
        assert_eq!(try_it("", &own, address.clone(), 1), Status::EInvalidNamespace);
        assert_eq!(try_it(&"n".repeat(257), &own, address.clone(), 1), Status::EInvalidNamespace);
        assert_eq!(try_it("n", &other.to_bytes(), address.clone(), 1), Status::EInvalidPeerInfo);
        assert_eq!(try_it("n", &own, Vec::new(), 1), Status::EInvalidPeerInfo);
        assert_eq!(try_it("n", &own, vec![vec![0; 2049]], 1), Status::EInvalidPeerInfo);
        assert_eq!(try_it("n", &own, address.clone(), -1), Status::EInvalidTtl);
        assert_eq!(try_it("n", &own, address.clone(), 259_201), Status::EInvalidTtl);
        assert_eq!(try_it(&"n".repeat(256), &own, vec![vec![0; 2048]], 259_200), Status::Ok);
        for number in 1..REGISTRATIONS_PER_PEER_MAX {
            assert_eq!(try_it(&number.to_string(), &own, address.clone(), 0), Status::Ok);
        }
        assert_eq!(try_it("one more", &own, address.clone(), 0), Status::ENotAuthorized);
        assert_eq!(try_it("1", &own, address, 0), Status::Ok, "one that is there can be renewed");
    }

    #[test]
    fn memory_is_bounded_whoever_registers() {
        let mut registry = Registry::new([7; 16], 64 * 1024);
        let mut refused = 0;
        for _ in 0..1000 {
            let peer = PeerId::random();
            let status = register_as(&mut registry, NOW, peer, "n", &[], vec![vec![0; 2048]], 60);
            refused += usize::from(status == ResponseStatus::EUnavailable);
        }
        assert!(registry.memory <= 64 * 1024 && refused > 900, "{} {refused}", registry.memory);
        let later = NOW + Span::from_secs(60);
        assert_eq!(register(&mut registry, later, PeerId::random(), "n"), ResponseStatus::Ok);
        assert_eq!(registry.len(), 1);
    }
}
