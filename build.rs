//! Compiles the protobuf definitions with protox, so that no `protoc` is needed.

use std::error::Error;

const PROTOS: [&str; 2] = ["proto/netsvr.proto", "proto/im.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={proto}");
    }
    let files = protox::compile(PROTOS, ["proto"])?;
    // Payloads stay slices of the frame that they came in; maps keep one order.
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(files)?;
    Ok(())
}
