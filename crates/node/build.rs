//! Makes the gRPC services of a node from the files of `dunlin-proto`, on the types that it made already.

use std::error::Error;

/// Folder of the protobuf files, relative to this package.
const PROTO: &str = "../proto/proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    generate("weshnet/protocol/v1/protocol.proto", true)?;
    generate("weshnet/outofstoremessage/v1/outofstoremessage.proto", true)?;
    generate("weshnet/replication/v1/replication.proto", true)?;
    generate("dunlin/device/v1/device.proto", true)?;
    // Its call `Connect` would clash with the constructor that opens a transport.
    generate("dunlin/node/v1/node.proto", false)
}

fn generate(file: &str, with_transport: bool) -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile([file], [PROTO])?;
    tonic_prost_build::configure()
        .build_transport(with_transport)
        .extern_path(".weshnet", "::dunlin_proto::weshnet")
        .extern_path(".dunlin", "::dunlin_proto::dunlin")
        .compile_fds(descriptors)?;
    Ok(())
}
