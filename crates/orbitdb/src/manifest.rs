//! Manifests: the block that an address names.

use dunlin_base::cid::{CODEC_DAG_CBOR, CODEC_RAW, cid_of};
use dunlin_base::{Cid, GroupId, PublicKey};
use dunlin_log::{cbor, go_json};

/// What a store is. Whoever opens a store wants the block to be in the block store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The name of the store.
    pub name: String,
    /// The type of the store.
    pub kind: String,
    /// Where the access list is, as `/ipfs/` and a CID.
    pub access: String,
}

impl Manifest {
    /// The dag-cbor block, in Go's order of fields.
    pub fn block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        cbor::put_map(&mut block, 3);
        for (key, value) in [("name", &self.name), ("type", &self.kind), ("access_controller", &self.access)]
        {
            cbor::put_text(&mut block, key);
            cbor::put_text(&mut block, value);
        }
        block
    }

    /// The CID of the block.
    pub fn cid(&self) -> Cid {
        cid_of(CODEC_DAG_CBOR, &self.block())
    }
}

/// The manifest of the store of type `kind` of a group, written with `write`.
pub fn group_manifest(group: &GroupId, kind: &str, write: &PublicKey) -> Manifest {
    let access = access_cid(&group_access(group, kind, write));
    Manifest { name: format!("{group}_{kind}"), kind: kind.to_owned(), access: format!("/ipfs/{access}") }
}

/// The access list of a group's store: JSON that is never stored, only hashed.
pub fn group_access(group: &GroupId, kind: &str, write: &PublicKey) -> String {
    let mut json = String::new();
    let lists = [
        ("{", "group_id", group.to_string()),
        (",", "store_type", kind.into()),
        (",", "write", write.to_string()),
    ];
    for (before, name, value) in lists {
        json.push_str(before);
        go_json::push_string(&mut json, name);
        json.push_str(":[");
        go_json::push_string(&mut json, &value);
        json.push(']');
    }
    json.push('}');
    json
}

/// The CID of an access list that is not stored.
pub fn access_cid(access: &str) -> Cid {
    cid_of(CODEC_RAW, access.as_bytes())
}
