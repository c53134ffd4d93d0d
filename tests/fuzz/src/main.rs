//! The fuzzer's program; `cargo xtask fuzz` builds and runs it. Built without `--cfg fuzzing` it feeds the files
//! it is given, one by one: that is how an input the fuzzer has found is looked at with a debugger. `LANYARD_FUZZ` names what
//! they are fed to.
#![forbid(unsafe_code)]
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lanyard_fuzz::chosen()(bytes));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    for path in std::env::args_os().skip(1) {
        lanyard_fuzz::chosen()(&std::fs::read(path)?);
    }
    Ok(())
}
