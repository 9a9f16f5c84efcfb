//! Generates the clients until the crates that own the services do.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../crates/proto/proto";
    let set = protox::compile(["dunlin/chat/v1/chat.proto", "dunlin/node/v1/node.proto"], [root])?;
    tonic_prost_build::configure().build_server(false).build_transport(false).compile_fds(set)?;
    Ok(())
}
