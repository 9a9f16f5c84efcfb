//! What the shell needs to know to find people: under whose names this account is found, and who is looked
//! for. Names change with time; only what they are made of is told (`spec/security.md` D6).

use dunlin_base::kv::{Read, ReadError};
use dunlin_base::{AccountId, PeerId, Span};

use super::requests::RECORDS_PER_PEER_MAX;
use super::{Ctx, Engine};

/// How long a peer counts as one that announced a name after somebody said so.
const FOUND_TTL: Span = Span::from_secs(7200);

/// Somebody who is found by names made of an account and a seed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Findable {
    /// The account.
    pub account: AccountId,
    /// Its public rendezvous seed.
    pub seed: [u8; 32],
}

/// Who is to be found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Search {
    /// This account, while it accepts requests.
    pub own: Option<Findable>,
    /// Those who were asked and have not been reached.
    pub sought: Vec<Findable>,
}

impl Engine {
    /// Who is to be found from now on; `None` while that is what it was at the last call.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn search_if_changed(&mut self, read: &dyn Read) -> Result<Option<Search>, ReadError> {
        if !self.search_changed {
            return Ok(None);
        }
        let own = match self.requests_enabled {
            true => self.own_contact(read)?,
            false => crate::contact::Contact { account: self.account_id(), seed: None, metadata: Vec::new() },
        };
        let findable =
            |account: AccountId, seed: Option<[u8; 32]>| seed.map(|seed| Findable { account, seed });
        let sought = self.lookups.iter().filter_map(|(account, lookup)| findable(*account, lookup.seed()));
        let search = Search { own: findable(own.account, own.seed), sought: sought.collect() };
        self.search_changed = false;
        Ok(Some(search))
    }

    /// How many connected peers announced a name, by local records or otherwise.
    pub fn peers_with_records(&self) -> usize {
        self.peers.values().filter(|peer| !peer.records.is_empty()).count()
    }

    /// Notes that somebody says of a connected peer that it is found under `names`. It is a claim, and makes
    /// the peer one of those that are tried.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_found(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        peer: &PeerId,
        names: &[String],
    ) -> Result<(), ReadError> {
        if let Some(known) = self.peers.get_mut(peer) {
            known.records.retain(|_, expires| *expires > ctx.now);
            for name in names {
                if known.records.len() < RECORDS_PER_PEER_MAX {
                    known.records.insert(name.clone(), ctx.now + FOUND_TTL);
                }
            }
            self.hasten_lookups(ctx);
        }
        self.finish(ctx)
    }
}
