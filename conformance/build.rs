//! Makes the client of `ProtocolService` from the files of `dunlin-proto`, on the types that it made already.

use std::error::Error;

/// Folder of the protobuf files, relative to this package.
const PROTO: &str = "../crates/proto/proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = protox::compile(["weshnet/protocol/v1/protocol.proto"], [PROTO])?;
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".weshnet", "::dunlin_proto::weshnet")
        .compile_fds(descriptors)?;
    Ok(())
}
