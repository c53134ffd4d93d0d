//! Compiles the messages of Kinova's arms for the clients in Python, which take them as they are: `front/proto` is the one place
//! where they stand.

use std::error::Error;
use std::path::Path;

use protox::prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../front/proto/kortex");
    let descriptors = protox::compile(["kortex/v1/kortex.proto"], ["../front/proto"])?;
    let folder = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    std::fs::write(Path::new(&folder).join("kortex.binpb"), descriptors.encode_to_vec())?;
    Ok(())
}
