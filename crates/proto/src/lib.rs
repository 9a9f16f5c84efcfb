//! The protobuf files of the Wesh protocol, of the messenger and of Dunlin's own services, and the types
//! made from them.
//!
//! The files lie in `proto/`, named after their packages, and are the words of this project; names and
//! numbers are those of the existing network. Modules follow the packages; the ones that are used most
//! have a short name at the root. What needs the services generates them from the same files and refers
//! to the messages here.
//!
//! Messages are what came over the wire and nothing more: none is checked, and enums are numbers until
//! asked. Fields that hold secrets or private content are missing from `Debug`.
//!
//! ```
//! use dunlin_proto::protocol::{Group, GroupType};
//! use prost::Message;
//!
//! let group = Group { secret: vec![7; 32], group_type: GroupType::MultiMember.into(), ..Group::default() };
//! assert_eq!(Group::decode(&*group.encode_to_vec())?, group);
//! assert!(!format!("{group:?}").contains('7'));
//! # Ok::<(), prost::DecodeError>(())
//! ```

// Comments on the generated items come from the proto files, which do not repeat what a name says.
// Generated paths are longer than they need to be.
#![allow(missing_docs, unused_qualifications)]

pub use berty::messenger::v1 as messenger;
pub use dunlin::chat::v1 as chat;
pub use weshnet::errcode;
pub use weshnet::protocol::v1 as protocol;
pub use weshnet::replication::v1 as replication;

/// All files as a serialized `FileDescriptorSet`, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Dunlin's own services.
pub mod dunlin {
    pub mod chat {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/dunlin.chat.v1.rs"));
        }
    }
    pub mod device {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/dunlin.device.v1.rs"));
        }
    }
    pub mod node {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/dunlin.node.v1.rs"));
        }
    }
}

/// Frames of the contact request handshake.
pub mod handshake {
    include!(concat!(env!("OUT_DIR"), "/handshake.rs"));
}

/// The rendezvous protocol.
pub mod rendezvous {
    pub mod pb {
        include!(concat!(env!("OUT_DIR"), "/rendezvous.pb.rs"));
    }
}

/// Records of local discovery.
pub mod tinder {
    include!(concat!(env!("OUT_DIR"), "/tinder.rs"));
}

/// The Wesh protocol.
pub mod weshnet {
    pub mod account {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/weshnet.account.v1.rs"));
        }
    }
    pub mod errcode {
        include!(concat!(env!("OUT_DIR"), "/weshnet.errcode.rs"));
    }
    pub mod protocol {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/weshnet.protocol.v1.rs"));
        }
    }
    pub mod replication {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/weshnet.replication.v1.rs"));
        }
    }
}

/// The messenger.
pub mod berty {
    pub mod messenger {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/berty.messenger.v1.rs"));
        }
    }
    pub mod push {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/berty.push.v1.rs"));
        }
    }
}

include!(concat!(env!("OUT_DIR"), "/redacted.rs"));
include!(concat!(env!("OUT_DIR"), "/recode.rs"));

/// Decodes and encodes one type.
fn recode_as<M: prost::Message + Default>(bytes: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
    M::decode(bytes).map(|message| message.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use prost_reflect::{DescriptorPool, Value};

    use super::*;

    #[test]
    fn every_described_message_can_be_recoded() {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
        for message in pool.all_messages().filter(|message| !message.is_map_entry()) {
            assert_eq!(
                recode(message.full_name(), &[]).unwrap().unwrap(),
                [0u8; 0],
                "{}",
                message.full_name()
            );
        }
        assert!(recode("weshnet.protocol.v1.Nothing", &[]).is_none());
    }

    #[test]
    fn the_marks_on_secrets_reach_reflection() {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
        let group = pool.get_message_by_name("weshnet.protocol.v1.Group").unwrap();
        let mark = |field: &str| {
            let options = group.get_field_by_name(field).unwrap().options();
            options.get_field_by_name("debug_redact").map(|mark| mark.into_owned())
        };
        assert_eq!(mark("secret"), Some(Value::Bool(true)));
        assert_ne!(mark("public_key"), Some(Value::Bool(true)));
    }

    #[test]
    fn secrets_do_not_show() {
        let secret = vec![0xe7; 32]; // 231
        let group = protocol::Group {
            public_key: vec![1, 2],
            secret: secret.clone(),
            link_key: secret.clone(),
            ..protocol::Group::default()
        };
        assert_eq!(
            format!("{group:?}"),
            "Group { public_key: [1, 2], secret_sig: [], group_type: Undefined, sign_pub: [], link_key_sig: [], .. }"
        );
        let chain = protocol::DeviceChainKey { chain_key: secret, counter: 3 };
        assert_eq!(format!("{chain:?}"), "DeviceChainKey { counter: 3, .. }");
        let link = messenger::BertyGroup { group: Some(group), display_name: "harbour".into() };
        let shown = format!("{link:?} {:?}", messenger::app_message::UserMessage { body: "harbour".into() });
        assert!(!shown.contains("231") && !shown.contains("harbour"), "{shown}");
    }
}
