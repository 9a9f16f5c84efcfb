//! Makes Rust types from `proto/`, without `protoc`.
//!
//! Besides what prost makes, each message with a field marked `debug_redact` gets a `Debug` that leaves
//! that field out, and all messages are put into one table by name.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, Value};

/// Folder of the protobuf files, relative to this package.
const PROTO: &str = "proto";

/// Every file, relative to `proto/`.
const FILES: [&str; 13] = [
    "berty/messenger/v1/messenger.proto",
    "berty/push/v1/push.proto",
    "dunlin/chat/v1/chat.proto",
    "dunlin/device/v1/device.proto",
    "dunlin/node/v1/node.proto",
    "handshake/handshake.proto",
    "rendezvous/pb/rendezvous.proto",
    "tinder/tinder.proto",
    "weshnet/account/v1/account.proto",
    "weshnet/errcode/errcode.proto",
    "weshnet/outofstoremessage/v1/outofstoremessage.proto",
    "weshnet/protocol/v1/protocol.proto",
    "weshnet/replication/v1/replication.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new([PROTO])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let pool = compiler.descriptor_pool();
    let messages: Vec<_> = pool.all_messages().filter(|message| !message.is_map_entry()).collect();

    let redacted: Vec<_> = messages.iter().filter(|message| is_redacted(message)).collect();

    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    config.skip_debug(redacted.iter().map(|message| path(message)));
    for message in redacted.iter().filter(|message| message.child_enums().len() > 0) {
        // Skipping takes everything inside the message along, but an enum has nothing to hide.
        config.enum_attribute(path(message), "#[derive(Debug)]");
    }
    config.compile_fds(compiler.file_descriptor_set())?;

    fs::write(out.join("redacted.rs"), redacted.iter().map(|message| debug_of(message)).collect::<String>())?;
    fs::write(out.join("recode.rs"), recode(&messages))?;
    write_descriptors(&pool, &out.join("descriptors.bin"))
}

/// Writes the descriptors for reflection: without the comments, which would triple their size.
fn write_descriptors(pool: &DescriptorPool, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new([PROTO])?;
    compiler.include_imports(true).include_source_info(false).open_files(FILES)?;
    assert_eq!(compiler.descriptor_pool().all_messages().len(), pool.all_messages().len());
    Ok(fs::write(path, compiler.encode_file_descriptor_set())?)
}

/// How prost-build is told which message is meant.
fn path(message: &MessageDescriptor) -> String {
    format!(".{}", message.full_name())
}

/// Whether the message, or one that it is nested in, has a secret field.
fn is_redacted(message: &MessageDescriptor) -> bool {
    let own = message.fields().any(|field| is_secret(&field));
    own || message.parent_message().is_some_and(|outer| is_redacted(&outer))
}

/// Whether the field is marked `debug_redact`.
fn is_secret(field: &FieldDescriptor) -> bool {
    let options = field.options();
    options.get_field_by_name("debug_redact").is_some_and(|mark| *mark == Value::Bool(true))
}

/// A `Debug` that shows every field but the secret ones.
fn debug_of(message: &MessageDescriptor) -> String {
    let mut code = format!(
        "impl ::core::fmt::Debug for {} {{\n    \
             fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{\n        \
                 f.debug_struct({:?})",
        rust_path(message),
        message.name().to_upper_camel_case(),
    );
    for field in message.fields().filter(|field| !is_secret(field)) {
        let name = field.name().to_snake_case();
        // A single enum has an accessor that gives it its name; everything else shows itself.
        let call = if matches!(field.kind(), Kind::Enum(_)) && !field.is_list() { "()" } else { "" };
        let _ = write!(code, "\n            .field({name:?}, &self.r#{name}{call})");
    }
    code.push_str("\n            .finish_non_exhaustive()\n    }\n}\n");
    code
}

/// The function that decodes and encodes a message by name.
fn recode(messages: &[MessageDescriptor]) -> String {
    let mut code = String::from(
        "/// Decodes a message of the type called `name`, such as `weshnet.protocol.v1.Group`, and encodes it\n\
         /// again: what conformance tests compare and fuzzing feeds. `None` when there is no such type.\n\
         ///\n\
         /// # Errors\n\
         /// [`prost::DecodeError`] when the bytes are no such message.\n\
         pub fn recode(name: &str, bytes: &[u8]) -> Option<Result<Vec<u8>, prost::DecodeError>> {\n    \
             Some(match name {\n",
    );
    for message in messages {
        let _ = writeln!(
            code,
            "        {:?} => recode_as::<{}>(bytes),",
            message.full_name(),
            rust_path(message)
        );
    }
    code.push_str("        _ => return None,\n    })\n}\n");
    code
}

/// Where prost-build puts the type, seen from the root of the crate.
fn rust_path(message: &MessageDescriptor) -> String {
    let name = message.name().to_upper_camel_case();
    match message.parent_message() {
        Some(outer) => {
            let module = rust_path(&outer);
            let (modules, outer_name) = module.rsplit_once("::").unwrap_or(("", &module));
            format!("{modules}::{}::{name}", outer_name.to_snake_case())
        }
        None => format!("{}::{name}", message.package_name().replace('.', "::")),
    }
}
