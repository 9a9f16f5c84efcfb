//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::hook::Hook;
use crate::mesh::{Origin, Setting};
use crate::process::program_beside;
use crate::scenarios::{self, Scenario};
use crate::tolerance::{Tolerance, Tolerances};
use crate::trouble::{Outcome, failed};
use crate::wait::Patience;

/// Hold nodes to the Wesh protocol, over their gRPC service alone.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask conformance", version)]
pub struct Options {
    /// A node that runs already: http://127.0.0.1:PORT or unix:PATH; may be repeated. Nodes given like this
    /// are connected with each other by whoever started them.
    #[arg(long, value_name = "ADDRESS")]
    node: Vec<String>,
    /// Start this many `dunlin node` processes, on loopback and in temporary directories, connected with all
    /// other nodes.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    spawn: usize,
    /// Let the spawned nodes be the first in the order of nodes; who is first asks, creates and invites.
    #[arg(long)]
    spawned_first: bool,
    /// The program that is spawned [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// A shell command that ends and starts nodes given by --node. It is called with `stop`, `kill` or `start`
    /// and the address, and returns when that is done; a node started again has its old address and data, and
    /// is connected as before.
    #[arg(long, value_name = "COMMAND")]
    hook: Option<String>,
    /// Let a known fault of other software pass, and say so; may be repeated.
    #[arg(long, value_enum, value_name = "FAULT")]
    pub tolerate: Vec<Tolerance>,
    /// Run only this scenario; may be repeated.
    #[arg(long, value_name = "SCENARIO")]
    only: Vec<String>,
    /// Leave this scenario out, and say so; may be repeated.
    #[arg(long, value_name = "SCENARIO")]
    leave_out: Vec<String>,
    /// Run only what gets harder with the number of nodes.
    #[arg(long)]
    growing: bool,
    /// How many seconds a node may take for one thing.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
    /// Show the scenarios, and run none.
    #[arg(long)]
    pub list: bool,
}

impl Options {
    /// Where the nodes come from, in their order.
    pub fn origins(&self) -> Vec<Origin> {
        let mut origins: Vec<_> = self.node.iter().cloned().map(Origin::Given).collect();
        let spawned = std::iter::repeat_n(Origin::Spawned, self.spawn);
        if self.spawned_first {
            origins.splice(0..0, spawned);
        } else {
            origins.extend(spawned);
        }
        origins
    }

    /// The nodes in words.
    pub fn described(&self) -> String {
        let given = (!self.node.is_empty()).then(|| format!("{} given", self.node.len()));
        let spawned = (self.spawn > 0).then(|| format!("{} spawned", self.spawn));
        let mut parts: Vec<String> = given.into_iter().chain(spawned).collect();
        if self.spawned_first {
            parts.reverse();
        }
        parts.join(", ")
    }

    /// The scenarios to run.
    pub fn chosen(&self) -> Outcome<Vec<&'static Scenario>> {
        for name in self.only.iter().chain(&self.leave_out) {
            if !scenarios::all().any(|scenario| scenario.name == name) {
                return failed(format!("there is no scenario {name}; --list shows them"));
            }
        }
        let named =
            |scenario: &Scenario| self.only.is_empty() || self.only.iter().any(|name| name == scenario.name);
        let grows = |scenario: &Scenario| !self.growing || scenario.grows;
        Ok(scenarios::all().filter(|scenario| named(scenario) && grows(scenario)).collect())
    }

    /// Whether a scenario is to be left out.
    pub fn leaves_out(&self, scenario: &Scenario) -> bool {
        self.leave_out.iter().any(|name| name == scenario.name)
    }

    /// What the mesh is made with.
    pub fn setting(&self) -> Outcome<Setting> {
        if self.node.is_empty() && self.spawn == 0 {
            return failed("there is no node: give some by --node ADDRESS, or start some by --spawn COUNT");
        }
        let program = self.program.clone().or_else(program_beside).filter(|_| self.spawn > 0);
        if self.spawn > 0 && program.is_none() {
            return failed("there is no program to spawn; build `dunlin`, or name it: --program FILE");
        }
        Ok(Setting {
            program,
            hook: self.hook.as_deref().map(Hook::new),
            patience: Patience::of(Duration::from_secs(self.patience)),
            tolerances: Tolerances::of(self.tolerate.iter().copied()),
        })
    }
}
