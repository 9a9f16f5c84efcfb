//! The Kademlia DHT as a driver. Only names of contact requests go there (`spec/security.md` D1, D7).

use std::time::Duration;

use dunlin_ipfs::{Ipfs, PeerId};

use super::driver::{Driver, DriverError, Sighted, SourceKind};

/// How long what the DHT tells is of interest.
const FOUND_TTL: Duration = Duration::from_secs(600);

/// The DHT, entered by the bootstrap peers that the user named.
pub(super) struct Dht {
    pub ipfs: Ipfs,
}

#[tonic::async_trait]
impl Driver for Dht {
    fn kind(&self) -> SourceKind {
        SourceKind::Dht
    }

    fn place(&self) -> String {
        String::new()
    }

    fn takes_groups(&self) -> bool {
        false
    }

    async fn advertise(&self, name: &str, ttl: Duration) -> Result<Duration, DriverError> {
        self.ipfs.dht_announce(name).await.map_err(|error| DriverError::Failed(error.to_string()))?;
        Ok(ttl)
    }

    async fn find(&self, name: &str, _: bool) -> Result<Vec<Sighted>, DriverError> {
        let found = self.ipfs.dht_find(name).await;
        let found = found.map_err(|error| DriverError::Failed(error.to_string()))?;
        let own = self.ipfs.peer_id();
        // Where they are, the host knows for a moment only, and dials them by itself.
        let sighted = |peer: PeerId| Sighted { peer, addresses: Vec::new(), ttl: FOUND_TTL };
        Ok(found.into_iter().filter(|peer| *peer != own).map(sighted).collect())
    }

    async fn withdraw(&self, name: &str) -> Result<(), DriverError> {
        self.ipfs.dht_withdraw(name).await.map_err(|error| DriverError::Failed(error.to_string()))
    }
}
