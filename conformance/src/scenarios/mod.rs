//! What any node of the network does, as scenarios.

mod accounts;
mod contacts;
mod devices;
mod errors;
mod groups;
mod lists;
mod restarts;

use std::pin::Pin;

use crate::mesh::Mesh;
use crate::trouble::Outcome;

/// One thing that the nodes do together.
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What holds when it passes.
    pub proves: &'static str,
    /// How many nodes it takes at least.
    pub nodes: usize,
    /// Whether more nodes make it harder; the others are left out of a run that is only about numbers.
    pub grows: bool,
    /// Runs it.
    pub run: for<'a> fn(&'a mut Mesh) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>,
}

/// Makes a scenario out of a function.
macro_rules! scenario {
    ($name:literal, $proves:literal, $nodes:literal, $grows:literal, $run:path) => {
        crate::scenarios::Scenario {
            name: $name,
            proves: $proves,
            nodes: $nodes,
            grows: $grows,
            run: |mesh| Box::pin($run(mesh)),
        }
    };
}
pub(crate) use scenario;

/// All scenarios, in the order in which they run: an account that has seen the earlier ones can run the later.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    let groups = [
        accounts::SCENARIOS,
        contacts::SCENARIOS,
        groups::SCENARIOS,
        lists::SCENARIOS,
        errors::SCENARIOS,
        restarts::SCENARIOS,
        devices::SCENARIOS,
    ];
    groups.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn scenarios_have_names_of_their_own() {
        let names: BTreeSet<_> = all().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().count());
    }
}
