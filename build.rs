//! Compiles the protobuf definitions with protox, so that no `protoc` is needed.
//!
//! Messages become one Rust file per package in `OUT_DIR`; the gRPC services of xxim become
//! `OUT_DIR/grpc/pb.rs` beside it, so that the codecs know nothing of a transport.

use std::error::Error;
use std::path::PathBuf;

const PROTOS: [&str; 4] =
    ["proto/netsvr.proto", "proto/xxim.proto", "proto/im.proto", "proto/mesh.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    PROTOS.iter().for_each(|proto| println!("cargo::rerun-if-changed={proto}"));
    let files = protox::compile(PROTOS, ["proto"])?;
    // Payloads stay slices of the frame that they came in; maps keep one order.
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(files)?;
    services()
}

/// The services of `xxim.proto`, client and server; their messages are those of the codec.
fn services() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::var("OUT_DIR")?).join("grpc");
    std::fs::create_dir_all(&folder)?;
    let files = protox::compile(["proto/xxim.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .extern_path(".pb", "crate::protocols::xxim::wire::proto")
        .out_dir(folder)
        .compile_fds(files)?;
    Ok(())
}
