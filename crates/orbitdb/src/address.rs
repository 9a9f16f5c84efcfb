//! Addresses: the manifest's CID and a name, as a path.

use std::fmt;
use std::str::FromStr;

use dunlin_base::{Cid, GroupId, PublicKey};

use crate::manifest::{Manifest, group_manifest};

const PREFIX: &str = "/orbitdb/";

/// The address of a store. As text it is also the id of the store's log, and its topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreAddress {
    root: Cid,
    name: String,
}

/// Why a text is not the address of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The part after `/orbitdb/` is not a CID.
    #[error("an address begins with /orbitdb/ and a CID")]
    Root,
    /// The name leads out of the address.
    #[error("the name of the store leads out of its address")]
    Name,
}

impl StoreAddress {
    /// The address of the store of type `kind` of a group, written with `write` (`spec/wesh-protocol.md` §3.2).
    pub fn new(group: &GroupId, kind: &str, write: &PublicKey) -> Self {
        // A group's name is hexadecimal digits and a type, which nothing has to be cleaned from; a type
        // that leads out of the address is a mistake of the configuration, and gives a store by itself.
        let manifest = group_manifest(group, kind, write);
        Self { root: manifest.cid(), name: clean(&manifest.name).unwrap_or_default() }
    }

    /// The address of a store with this manifest.
    ///
    /// # Errors
    /// [`AddressError::Name`] when the name leads out of the address.
    pub fn of_manifest(manifest: &Manifest) -> Result<Self, AddressError> {
        let name = clean(&manifest.name).ok_or(AddressError::Name)?;
        Ok(Self { root: manifest.cid(), name })
    }

    /// The CID of the manifest.
    pub fn root(&self) -> &Cid {
        &self.root
    }

    /// The name of the store.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.root)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, "/{}", self.name) }
    }
}

impl FromStr for StoreAddress {
    type Err = AddressError;

    /// Parses what Go accepts: the prefix may be missing, the CID may be in any base, the name is
    /// cleaned. What is printed again is the one form that topics use.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let path = text.strip_prefix(PREFIX).unwrap_or(text);
        let (root, name) = path.split_once('/').unwrap_or((path, ""));
        // Base32 and base16 are read in both cases, though the prefix then is a capital as well.
        let root = root.parse().or_else(|_| root.to_ascii_lowercase().parse());
        Ok(Self { root: root.map_err(|_| AddressError::Root)?, name: clean(name).ok_or(AddressError::Name)? })
    }
}

/// Cleans a path as Go's `path.Join` does; `None` when it leads above its start.
fn clean(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "bafyreig23sifh7yq2sm6gzclhapu7ywyenfquxxrzzpxql6w5fu44pgcxq";

    #[test]
    fn group_stores_have_the_published_address() {
        // spec/wesh-protocol.md A.4.
        let key = |hex: &str| {
            PublicKey::from_bytes(&data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()).unwrap()
        };
        let group = GroupId::new(key("9a029b1b526b7185770b2dc7da55a19b5b11dac5ca44da577c8671a807308d83"));
        let write = key("2f4bbef67ec2073cbd5c114b58c8b97d8187729d353b7507c830c3872d064820");
        let address = StoreAddress::new(&group, "wesh_group_metadata", &write);
        assert_eq!(
            address.to_string(),
            "/orbitdb/bafyreieo442cd2jedbc4axurioyul3yn4wczxpmnqpvxrmmxn6ejq3krne/\
             9a029b1b526b7185770b2dc7da55a19b5b11dac5ca44da577c8671a807308d83_wesh_group_metadata"
        );
        assert_eq!(address.to_string().parse(), Ok(address));
    }

    #[test]
    fn all_forms_print_as_one() {
        for (text, printed) in [
            (format!("/orbitdb/{ROOT}/first"), format!("/orbitdb/{ROOT}/first")),
            (format!("{ROOT}/first"), format!("/orbitdb/{ROOT}/first")),
            (ROOT.to_owned(), format!("/orbitdb/{ROOT}")),
            (format!("/orbitdb/{ROOT}/a/../b//c/"), format!("/orbitdb/{ROOT}/b/c")),
            (format!("/orbitdb/{}/x", ROOT.to_ascii_uppercase()), format!("/orbitdb/{ROOT}/x")),
        ] {
            assert_eq!(text.parse::<StoreAddress>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn other_paths_are_no_addresses() {
        for text in ["", "first", "/orbitdb/first", &format!("/orbitdb//{ROOT}/x"), &format!("/ipfs/{ROOT}")]
        {
            assert_eq!(text.parse::<StoreAddress>(), Err(AddressError::Root), "{text}");
        }
        assert_eq!(format!("/orbitdb/{ROOT}/a/../../x").parse::<StoreAddress>(), Err(AddressError::Name));
    }
}
