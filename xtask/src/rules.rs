//! The rules of the workspace that no compiler checks.
//!
//! What lives here: which packages may not get into the supervisor, that its core reads no clock, and which crates
//! must forbid unsafe code. The checks are ordinary unit tests (`cargo test -p xtask`), so they run with the rest.

#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;

use crate::workspace::Workspace;

/// What must never be linked into the real-time process (rule R1), and what each of these would
/// bring along.
const BARRED_FROM_SUPERVISOR: &[(&str, &[&str])] = &[
    ("an async runtime", &["tokio", "async-std", "smol", "mio"]),
    ("an HTTP or gRPC stack", &["hyper", "tonic", "h2", "axum", "reqwest", "prost"]),
    ("TLS", &["rustls", "openssl", "native-tls"]),
    ("a logging framework", &["tracing", "log4rs", "env_logger", "slog"]),
];

/// Crates whose root file has to say `forbid(unsafe_code)`.
const WITHOUT_UNSAFE: &[&str] = &[
    "drivers/src/lib.rs",
    "front/src/lib.rs",
    "front/src/main.rs",
    "keys/src/lib.rs",
    "ctl/src/main.rs",
    "xtask/src/main.rs",
];

/// The barred packages in the output of `cargo tree --prefix none`, each with the reason.
fn offenders(tree: &str) -> Vec<String> {
    let present: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    BARRED_FROM_SUPERVISOR
        .iter()
        .flat_map(|(what, names)| names.iter().map(move |name| (what, name)))
        .filter(|(_, name)| present.contains(**name))
        .map(|(what, name)| format!("`{name}` ({what})"))
        .collect()
}

#[test]
fn r1_supervisor_links_no_runtime_network_stack_or_logger() {
    let workspace = Workspace::find().unwrap();
    let output = workspace
        .cargo()
        .args(["tree", "--offline", "-p", "supervisor", "-e", "normal", "--prefix", "none"])
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    assert!(tree.starts_with("supervisor "), "unexpected output of cargo tree:\n{tree}");
    let found = offenders(&tree);
    assert!(
        found.is_empty(),
        "the supervisor depends on {}. Rule R1: the process that stops the motors contains nothing that \
         could start threads, block, allocate or log behind its back. \
         `cargo tree -p supervisor -e normal -i NAME` shows who brings it in.",
        found.join(", ")
    );
}

#[test]
fn r1_recognises_exact_names_only() {
    let tree = "supervisor v0.1.0 (/x)\nlog v0.4.1\nmio-like v1.0.0\nserde v1.0.0 (*)\n";
    assert_eq!(offenders(tree), Vec::<String>::new());
    let tree = "supervisor v0.1.0 (/x)\nsocketcan v4.0.0\nmio v1.0.0\nmio v1.0.0 (*)\n";
    assert_eq!(offenders(tree), ["`mio` (an async runtime)"]);
}

#[test]
fn what_the_rig_preloads_is_linked_with_nothing() {
    let workspace = Workspace::find().unwrap();
    let output = workspace
        .cargo()
        .args(["tree", "--offline", "--workspace", "--edges", "normal,build,dev", "--prefix", "none"])
        .args(["--invert", "xstate"])
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    assert!(tree.starts_with("xstate ") && tree.lines().count() == 1, "crates depend on xstate:\n{tree}");
}

/// What reads a clock, in a crate that has `Nanos` and `std`.
const CLOCKS: [&str; 4] = ["Nanos::now(", "Instant::now", "SystemTime", "clock_gettime"];

/// Time comes in as a parameter, so that the model, the fuzzer and every test play the same twice.
#[test]
fn the_core_of_the_supervisor_reads_no_clock() {
    let folder = Workspace::find().unwrap().root.join("supervisor/src/core");
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let read = CLOCKS.iter().find(|clock| text.contains(**clock));
        assert_eq!(read, None, "{}: time comes in as a parameter, or through Wire::now", path.display());
        files += 1;
    }
    assert!(files > 10, "{files} files: is the core somewhere else?");
}

#[test]
fn crates_without_unsafe_code_say_so() {
    let workspace = Workspace::find().unwrap();
    for file in WITHOUT_UNSAFE {
        let text = fs::read_to_string(workspace.root.join(file)).unwrap_or_default();
        let says_so = text
            .lines()
            .map(str::trim)
            .any(|line| line.starts_with("#![forbid(") && line.contains("unsafe_code"));
        assert!(
            says_so,
            "{file} must start with #![forbid(unsafe_code)]: the design keeps unsafe code out of it"
        );
    }
}
