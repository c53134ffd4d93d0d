//! How a rig is started so that nothing of it stays behind.
//!
//! What lives here: [`Sandbox`], the chain of small programs around every rig, and the pumps that
//! carry the output.
//!
//! The chain is setpriv (dies with xtask, however xtask dies), unshare (a PID namespace: when its
//! first process goes, the kernel kills all others), timeout (that first process). The time limit
//! has to be inside the namespace, so that what it kills is also reaped there.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::install::{SETPRIV, TIMEOUT, UNSHARE, ensure_tool};
use crate::workspace::{is_root, say};

/// Takes stdout piece by piece.
pub type Sink<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

/// How a sandboxed program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this exit code.
    Exit(u8),
    /// It was killed because its time was over.
    TimedOut,
}

/// A command that runs confined.
pub struct Sandbox {
    words: Vec<OsString>,
    timeout: Duration,
}

impl Sandbox {
    /// Prepares the chain.
    ///
    /// # Errors
    /// When one of its programs is missing and cannot be installed.
    pub fn new(timeout: Duration) -> Result<Self> {
        let mut words: Vec<OsString> =
            vec![ensure_tool(SETPRIV)?.into(), "--pdeathsig".into(), "KILL".into(), "--".into()];
        let mut namespace: Vec<OsString> = vec![ensure_tool(UNSHARE)?.into()];
        if !is_root() {
            namespace.extend(["--user", "--map-current-user"].map(OsString::from));
        }
        namespace.extend(["--pid", "--fork", "--kill-child=KILL", "--mount-proc"].map(OsString::from));
        if is_root() || works(&namespace) {
            words.extend(namespace);
        } else {
            say("this kernel gives ordinary users no namespaces; a rig that is killed may leave processes");
        }
        words.extend([ensure_tool(TIMEOUT)?.into(), "-s".into(), "KILL".into()]);
        words.push(timeout.as_secs().max(1).to_string().into());
        Ok(Self { words, timeout })
    }

    /// Wraps a program so that its own messages go to the file `console`, while descriptor 3 is the
    /// file `klog` and descriptors 4 and 5 are the sandbox's stdout and stderr.
    pub fn with_descriptors(mut self, klog: &OsStr, console: &OsStr) -> Self {
        let script = r#"klog=$1 console=$2; shift 2; exec "$@" 3>"$klog" 4>&1 5>&2 >"$console" 2>&1"#;
        let mut words: Vec<OsString> = ["/bin/sh", "-c", script, "sh"].map(OsString::from).into();
        words.extend([klog.to_owned(), console.to_owned()]);
        words.append(&mut self.words);
        self.words = words;
        self
    }

    /// Runs a command to its end. Its stdin is empty.
    ///
    /// # Errors
    /// When the chain cannot be started.
    pub fn run(
        &self,
        program: &OsStr,
        args: &[OsString],
        adjust: impl FnOnce(&mut Command),
        stdout: Sink<'_>,
    ) -> Result<Ending> {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).arg(program).args(args);
        adjust(&mut command);
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.words[0].display()))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        thread::scope(|scope| {
            scope.spawn(|| pump(out, stdout));
            scope.spawn(|| {
                pump(err, &mut |bytes| {
                    let _ = std::io::stderr().lock().write_all(bytes);
                });
            });
        });
        let status = child.wait().context("cannot wait for the rig")?;
        // Killed by timeout(1): it reports 124, or 137 when the signal was KILL, which a command
        // may also report by itself.
        let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(137);
        let over = started.elapsed() >= self.timeout;
        Ok(if over && matches!(code, 124 | 137) { Ending::TimedOut } else { Ending::Exit(code) })
    }
}

fn works(prefix: &[OsString]) -> bool {
    Command::new(&prefix[0])
        .args(&prefix[1..])
        .arg("true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn pump(from: Option<impl Read>, to: &mut (dyn FnMut(&[u8]) + Send)) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => to(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
