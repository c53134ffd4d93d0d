//! Compiles `proto/` without `protoc`: nothing but cargo is needed to build.

use std::error::Error;

const FILES: &[&str] = &[
    "viam/robot/v1/robot.proto",
    "viam/component/motor/v1/motor.proto",
    "viam/component/base/v1/base.proto",
    "rpc/v1/auth.proto",
    "rpc/webrtc/v1/signaling.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .include_file("protocols.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
