//! A rendezvous server: moves requests between streams and the registry.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_ipfs::{AcceptError, Exchange, Ipfs};
use dunlin_proto::rendezvous::pb::Message;
use prost::Message as _;
use rand_core::{OsRng, RngCore as _};

use super::registry::{MEMORY_MAX, Registry};
use super::{MESSAGE_BYTES_MAX, RENDEZVOUS};

/// How long a stream may last in all (`spec/security.md` N3). Clients open one for each request.
const STREAM_MAX: Duration = Duration::from_secs(120);

/// A server that is switched on.
pub(crate) struct Server {
    registry: Mutex<Registry>,
}

impl Server {
    /// Starts to accept requests.
    pub async fn start(ipfs: &Ipfs) -> Result<Arc<Self>, AcceptError> {
        let mut secret = [0; 16];
        OsRng.fill_bytes(&mut secret);
        ipfs.accept_long_exchanges(RENDEZVOUS, MESSAGE_BYTES_MAX).await?;
        Ok(Arc::new(Self { registry: Mutex::new(Registry::new(secret, MEMORY_MAX)) }))
    }
}

/// Answers the requests on one stream until it ends.
pub(crate) async fn serve(server: Arc<Server>, stream: Exchange) {
    let serving = async {
        let mut stream = stream;
        while let Ok(frame) = stream.read_frame().await {
            let Ok(request) = Message::decode(frame) else { return };
            let answer = {
                let mut registry = server.registry.lock().unwrap_or_else(PoisonError::into_inner);
                registry.handle(crate::core::now(), stream.peer(), request)
            };
            let Ok(answer) = answer else { return };
            if let Some(answer) = answer
                && stream.write_frame(&answer.encode_to_vec()).await.is_err()
            {
                return;
            }
        }
    };
    // One that takes longer is cut off.
    let _ = tokio::time::timeout(STREAM_MAX, serving).await;
}
