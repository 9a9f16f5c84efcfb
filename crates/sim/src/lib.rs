//! A whole network of nodes in one thread, from one seed.
//!
//! The nodes are the same engine over the same store as on a device; only the shell is another one: it
//! moves the same bytes through simulated links, disks and clocks. A run is a pure function of its seed, so
//! a failure is told by one number and comes again as often as it is asked for.
//!
//! ```
//! let outcome = dunlin_sim::run(7, &dunlin_sim::Plan::from_seed(7));
//! assert!(outcome.violations.is_empty(), "{outcome}");
//! ```
//!
//! A run has two halves. In the first, people make contacts and groups and write, while links lose, double
//! and reorder what they carry, the network splits, devices sleep, clocks jump, and machines crash with
//! half-written sectors. In the second, all faults stop; what is not settled within a minute of
//! simulated time is a violation, as is any breach of the invariants in [`oracle`].

mod chance;
pub mod hostile;
mod network;
mod node;
pub mod oracle;
mod plan;
#[cfg(feature = "planted")]
pub mod planted;
mod world;

pub use oracle::Violation;
pub use plan::{Faults, Plan};
pub use world::{Outcome, run};
