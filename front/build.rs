//! Compiles `proto/` without `protoc`: nothing but cargo is needed to build.

use std::error::Error;
use std::path::Path;

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
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(FILES)?;
    let descriptors = compiler.file_descriptor_set();
    // What the reflection service tells clients. Encoded by the compiler, because the types of prost know no extensions,
    // and clients look for one: `safety_heartbeat_monitored`.
    let folder = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    std::fs::write(Path::new(&folder).join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .build_client(false)
        .bytes(".lanyard.kortex.v1.Frame")
        .include_file("protocols.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
