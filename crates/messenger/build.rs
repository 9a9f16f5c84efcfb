//! Makes the gRPC service of the chat from the file of `dunlin-proto`, on the types that it made already.

use std::error::Error;

#[cfg(feature = "service")]
fn main() -> Result<(), Box<dyn Error>> {
    /// Folder of the protobuf files, relative to this package.
    const PROTO: &str = "../proto/proto";

    println!("cargo::rerun-if-changed={PROTO}/dunlin/chat");
    let descriptors = protox::compile(["dunlin/chat/v1/chat.proto"], [PROTO])?;
    tonic_prost_build::configure()
        .extern_path(".dunlin", "::dunlin_proto::dunlin")
        .compile_fds(descriptors)?;
    Ok(())
}

#[cfg(not(feature = "service"))]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}
