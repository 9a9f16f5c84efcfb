//! The nodes of a run, and what can be done to them.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::hook::{Deed, Hook};
use crate::node::Node;
use crate::process::{Process, Recipe};
use crate::tolerance::Tolerances;
use crate::trouble::{Outcome, Trouble, failed, left_out};
use crate::wait::Patience;

/// Where a node comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// Somebody else started it, and serves it here.
    Given(String),
    /// The suite starts it.
    Spawned,
}

/// What the nodes of a run are made with.
pub struct Setting {
    /// The program that spawned nodes run; none when none may be spawned.
    pub program: Option<PathBuf>,
    /// What stops and starts the nodes that are given.
    pub hook: Option<Hook>,
    /// How long a node may take for one thing.
    pub patience: Patience,
    /// Which known faults are let pass.
    pub tolerances: Tolerances,
}

/// All nodes of a run.
pub struct Mesh {
    places: Vec<Place>,
    started: usize,
    work: TempDir,
    setting: Setting,
}

/// Names one node of a mesh, also while it is stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seat(usize);

/// One node, and how it is held.
struct Place {
    /// Its number; guests have none.
    member: Option<usize>,
    node: Node,
    hold: Hold,
}

enum Hold {
    /// By its address alone.
    Given { address: String },
    /// As a process; none while it is stopped.
    Spawned { recipe: Recipe, process: Option<Process> },
}

/// How a node ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// As a user ends it.
    Stop,
    /// As a crash ends it.
    Kill,
}

impl Mesh {
    /// Reaches the given nodes and starts the others, each connected with all that were there before.
    pub async fn gather(origins: &[Origin], setting: Setting) -> Outcome<Self> {
        let work = tempfile::Builder::new().prefix("dunlin-conformance-").tempdir();
        let work = work
            .map_err(|error| Trouble::Failed(format!("no directory can be made for the nodes: {error}")))?;
        let mut mesh = Self { places: Vec::new(), started: 0, work, setting };
        // Spawned nodes dial the given ones, which have to be known first.
        for (number, origin) in (1..).zip(origins) {
            if let Origin::Given(address) = origin {
                let node = mesh.reach(&format!("node {number}"), address).await?;
                let hold = Hold::Given { address: address.clone() };
                mesh.places.push(Place { member: Some(number), node, hold });
            }
        }
        for (number, origin) in (1..).zip(origins) {
            if *origin == Origin::Spawned {
                mesh.spawn(format!("node {number}"), Some(number), None).await?;
            }
        }
        mesh.places.sort_by_key(|place| place.member);
        Ok(mesh)
    }

    /// The nodes, in their order, without guests.
    pub fn nodes(&self) -> Vec<Node> {
        self.places.iter().filter(|place| place.member.is_some()).map(|place| place.node.clone()).collect()
    }

    /// The seats of the nodes, in their order, without guests.
    pub fn seats(&self) -> Vec<Seat> {
        (0..self.places.len())
            .map(Seat)
            .filter(|seat| self.places.get(seat.0).is_some_and(|place| place.member.is_some()))
            .collect()
    }

    /// The node on a seat.
    pub fn node(&self, seat: Seat) -> Outcome<Node> {
        self.place(seat).map(|place| place.node.clone())
    }

    /// Which known faults are let pass.
    pub fn tolerances(&self) -> &Tolerances {
        &self.setting.tolerances
    }

    /// Starts one more node for one scenario, connected with all others.
    pub async fn guest(&mut self) -> Outcome<Seat> {
        self.started += 1;
        self.spawn(format!("guest {}", self.started), None, None).await
    }

    /// Starts one more node for one scenario, with the account of an archive.
    pub async fn guest_with(&mut self, archive: &[u8]) -> Outcome<Seat> {
        self.started += 1;
        let file = self.work.path().join(format!("archive-{}.tar", self.started));
        std::fs::write(&file, archive)
            .map_err(|error| Trouble::Failed(format!("an archive cannot be written: {error}")))?;
        self.spawn(format!("guest {}", self.started), None, Some(file)).await
    }

    /// Ends the guests of a scenario.
    pub fn dismiss_guests(&mut self) {
        self.places.retain(|place| place.member.is_some());
    }

    /// Leaves the scenario out unless all these nodes can be ended and started again.
    pub fn can_restart(&self, seats: &[Seat]) -> Outcome {
        for seat in seats {
            let place = self.place(*seat)?;
            if matches!(place.hold, Hold::Given { .. }) && self.setting.hook.is_none() {
                return left_out(format!(
                    "{} was not started by this program; a hook could restart it (--hook)",
                    place.node.name()
                ));
            }
        }
        Ok(())
    }

    /// Leaves the scenario out unless this node can be started without peers.
    pub fn can_start_alone(&self, seat: Seat) -> Outcome {
        match self.place(seat)?.hold {
            Hold::Spawned { .. } => Ok(()),
            Hold::Given { .. } => left_out("a node that was not started by this program has its own peers"),
        }
    }

    /// Whether guests can be had.
    pub fn has_guests(&self) -> bool {
        self.setting.program.is_some()
    }

    /// Ends a node, until it is started again.
    pub async fn end(&mut self, seat: Seat, how: End) -> Outcome {
        self.can_restart(&[seat])?;
        let hook = self.setting.hook.clone();
        let place = self.place_mut(seat)?;
        match (&mut place.hold, hook) {
            (Hold::Spawned { process, .. }, _) => match (process.take(), how) {
                (Some(process), End::Stop) => process.stop().await,
                (Some(process), End::Kill) => process.kill(),
                (None, _) => failed(format!("{} has ended already", place.node.name())),
            },
            (Hold::Given { address }, Some(hook)) => {
                let deed = match how {
                    End::Stop => Deed::Stop,
                    End::Kill => Deed::Kill,
                };
                hook.run(deed, address).await
            }
            (Hold::Given { .. }, None) => Ok(()),
        }
    }

    /// Starts a node again, connected with all that run.
    pub async fn start(&mut self, seat: Seat) -> Outcome {
        let peers = self.addresses_beside(seat);
        self.start_beside(seat, &peers).await
    }

    /// Starts a node again, connected with nobody: a partition of one.
    pub async fn start_alone(&mut self, seat: Seat) -> Outcome {
        self.can_start_alone(seat)?;
        self.start_beside(seat, &[]).await
    }

    async fn start_beside(&mut self, seat: Seat, peers: &[String]) -> Outcome {
        let patience = self.setting.patience;
        let hook = self.setting.hook.clone();
        let place = self.place_mut(seat)?;
        let address = match &mut place.hold {
            Hold::Spawned { recipe, process } => {
                recipe.import = None;
                let started = Process::start(recipe, peers, patience).await?;
                process.insert(started).grpc.clone()
            }
            Hold::Given { address } => {
                let Some(hook) = hook else { return left_out("there is no hook to start it") };
                hook.run(Deed::Start, address).await?;
                address.clone()
            }
        };
        let name = place.node.name().to_owned();
        let reach = async || self.reach(&name, &address).await.map_err(|trouble| trouble.to_string());
        let node = patience.until(&format!("{name} to serve again"), reach).await?;
        self.place_mut(seat)?.node = node;
        Ok(())
    }

    /// Ends a node and starts it again.
    pub async fn restart(&mut self, seat: Seat, how: End) -> Outcome<Node> {
        self.end(seat, how).await?;
        self.start(seat).await?;
        self.node(seat)
    }

    async fn spawn(&mut self, name: String, member: Option<usize>, import: Option<PathBuf>) -> Outcome<Seat> {
        let Some(program) = self.setting.program.clone() else {
            return left_out("this needs a node that the suite starts itself (--spawn)");
        };
        let directory = self.work.path().join(name.replace(' ', "-"));
        let recipe = Recipe { program, directory, import };
        let peers = self.addresses_beside(Seat(self.places.len()));
        let process = Process::start(&recipe, &peers, self.setting.patience).await?;
        let node = self.reach(&name, &process.grpc).await?;
        self.places.push(Place { member, node, hold: Hold::Spawned { recipe, process: Some(process) } });
        Ok(Seat(self.places.len() - 1))
    }

    async fn reach(&self, name: &str, address: &str) -> Outcome<Node> {
        Node::connect(name, address, self.setting.patience, self.setting.tolerances.clone()).await
    }

    /// Where all that run can be dialled, but for one seat.
    fn addresses_beside(&self, seat: Seat) -> Vec<String> {
        let others = self.places.iter().enumerate().filter(|(index, _)| *index != seat.0);
        others.flat_map(|(_, place)| place.addresses()).collect()
    }

    fn place(&self, seat: Seat) -> Outcome<&Place> {
        self.places
            .get(seat.0)
            .ok_or_else(|| Trouble::Failed("a node of this number is not there".to_owned()))
    }

    fn place_mut(&mut self, seat: Seat) -> Outcome<&mut Place> {
        let missing = || Trouble::Failed("a node of this number is not there".to_owned());
        self.places.get_mut(seat.0).ok_or_else(missing)
    }
}

impl Place {
    /// Where it can be dialled, each with its peer id.
    fn addresses(&self) -> Vec<String> {
        match &self.hold {
            Hold::Spawned { process, .. } => {
                process.as_ref().map(|process| process.addresses.clone()).unwrap_or_default()
            }
            Hold::Given { .. } => {
                let dialable = self.node.listeners.iter().filter(|listener| listener.starts_with("/ip"));
                let peer_id = &self.node.peer_id;
                dialable
                    .map(|listener| match listener.contains("/p2p/") {
                        true => listener.clone(),
                        false => format!("{listener}/p2p/{peer_id}"),
                    })
                    .collect()
            }
        }
    }
}
