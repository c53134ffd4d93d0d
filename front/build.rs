//! Compiles `proto/` without `protoc`: nothing but cargo is needed to build.

use std::error::Error;
use std::path::Path;

use protox::prost::Message as _;

const FILES: &[&str] = &[
    "viam/robot/v1/robot.proto",
    "viam/component/motor/v1/motor.proto",
    "viam/component/base/v1/base.proto",
    "rpc/v1/auth.proto",
    "rpc/webrtc/v1/signaling.proto",
    "lanyard/v1/lanyard.proto",
    "kortex/v1/kortex.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    // What the reflection service tells clients.
    let folder = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    std::fs::write(Path::new(&folder).join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .bytes(".lanyard.kortex.v1.Frame")
        .include_file("protocols.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
