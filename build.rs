//! Compiles the protobuf definitions with protox, so that no `protoc` is needed.

use std::error::Error;

const PROTO: &str = "proto/netsvr.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={PROTO}");
    let files = protox::compile([PROTO], ["proto"])?;
    // Payloads stay slices of the frame that they came in; maps keep one order.
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(files)?;
    Ok(())
}
