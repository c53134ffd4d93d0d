//! What the two guest machines share.
//!
//! What lives here: [`Guest`], the folder through which host and guest talk during one run, with the
//! first program of the guest (guest-init.sh), its settings and the command; and the reading of the
//! result afterwards.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::death::{self, NotStarted};
use super::sandbox::Ending;
use super::{Controllers, Kind, Request, TIMED_OUT};
use crate::install::{IP, ensure_tool, last_lines};
use crate::packages;
use crate::workspace::{Workspace, find_program, say, search_path};

/// The first program of the guest, without its `#!` line.
const INIT: &str = include_str!("guest-init.sh");

/// The start of the names of the folders made here.
const PREFIX: &str = "lanyard-rig";

/// Kernel modules the guest must have, and the ones it gets when they exist.
pub const CAN_MODULES: &[&str] = &["overlay", "can-raw", "can-bcm", "vcan", "vxcan"];
/// See [`CAN_MODULES`].
pub const EXTRA_MODULES: &[&str] = &["can-gw", "slcan", "ipv6", "softdog"];

/// What the machine's kernel prints, and what the program prints that is the machine.
const LOGS: [&str; 2] = ["klog", "console"];

/// The folder of one run. It is removed when this is dropped.
pub struct Guest {
    /// The folder, at a path without blanks: it appears on the kernel's command line.
    pub folder: PathBuf,
    /// Folders shared read-write at the same path; the first is `folder`.
    pub shares: Vec<PathBuf>,
    kind: Kind,
    busybox: PathBuf,
    /// Where the log of a machine that did not start is kept.
    cache: PathBuf,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Guest {
    /// Makes the folder and writes the command and the list of shares into it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(workspace: &Workspace, request: &Request, kind: Kind, busybox: &Path) -> Result<Self> {
        sweep();
        let mut shares = vec![make_folder()?];
        shares.push(workspace.target.clone());
        shares.extend(request.rw.iter().cloned());
        let folder = shares[0].clone();
        let guest = Self { folder, shares, kind, busybox: busybox.to_owned(), cache: workspace.cache() };
        let mut list = Vec::new();
        for share in &guest.shares {
            if share.as_os_str().as_bytes().iter().any(|b| matches!(b, b'\n' | b',' | b'\\')) {
                bail!(
                    "{}: the rig cannot share a path with a comma, backslash or line break",
                    share.display()
                );
            }
            list.extend_from_slice(share.as_os_str().as_bytes());
            list.push(b'\n');
        }
        guest.write("shares", &list)?;
        guest.write("job", &job(request, kind))?;
        Ok(guest)
    }

    /// Writes the guest's first program and its settings. `shell` is the busybox with which the guest
    /// starts, at a path it has before the host's files are mounted.
    ///
    /// # Errors
    /// When they cannot be written, or a program that the guest needs is missing.
    pub fn write_init(&self, request: &Request, shell: &Path, modules: &[PathBuf]) -> Result<()> {
        let mut init = format!("#!{} sh\n", shell.display()).into_bytes();
        init.extend_from_slice(INIT.as_bytes());
        self.write("init", &init)?;
        fs::set_permissions(self.folder.join("init"), fs::Permissions::from_mode(0o755))?;
        let mut list = Vec::new();
        for module in modules {
            list.extend_from_slice(module.as_os_str().as_bytes());
            list.push(b'\n');
        }
        self.write("modules", &list)?;
        let controllers = match request.controllers {
            Controllers::None => "",
            Controllers::Pair => "can0 can1",
        };
        // Busybox can neither name the far end of a pair nor set a bit rate.
        let ip = ensure_tool(IP)?;
        let mut settings =
            format!("kind={}\nvcans={}\ncontrollers='{controllers}'\n", self.kind.name(), request.vcans)
                .into_bytes();
        for (name, path) in [
            ("busybox", shell),
            ("host_busybox", &self.busybox),
            ("host_ip", &ip),
            ("exchange", &self.folder),
        ] {
            settings.extend_from_slice(name.as_bytes());
            settings.push(b'=');
            settings.extend_from_slice(&quoted(path.as_os_str()));
            settings.push(b'\n');
        }
        self.write("settings", &settings)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The command's exit code, from what the guest left in the folder.
    ///
    /// # Errors
    /// When the guest left none because it died: [`NotStarted`] if it had not even begun, otherwise with the end of its
    /// log.
    pub fn result(&self, ending: Ending, timeout: Duration) -> Result<u8> {
        let status = fs::read_to_string(self.folder.join("status")).unwrap_or_default();
        if let Ok(code) = status.trim().parse::<u8>() {
            return Ok(code);
        }
        let started = self.folder.join("started").exists();
        match ending {
            Ending::TimedOut => {
                let log = if started { String::new() } else { format!(", still starting{}", self.log()) };
                say(format!("rig: killed after {} s (--timeout){log}", timeout.as_secs()));
                Ok(TIMED_OUT)
            }
            Ending::Exit(code) if started => bail!("the guest machine died (exit code {code}){}", self.log()),
            Ending::Exit(code) => Err(self.not_started(code)?.into()),
        }
    }

    /// Keeps what a machine has said that ended before the command began.
    fn not_started(&self, code: u8) -> Result<NotStarted> {
        let [kernel, program] = LOGS.map(|file| self.said(file));
        let log = self.cache.join(format!("{}-death.log", self.kind.name()));
        fs::write(&log, format!("{kernel}\n{program}"))
            .with_context(|| format!("cannot write {}", log.display()))?;
        Ok(NotStarted { kind: self.kind, code, cause: death::cause(&kernel, &program), log })
    }

    /// What was printed into a file of the folder.
    fn said(&self, file: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join(file)).unwrap_or_default()).into_owned()
    }

    /// The end of what the machine's kernel and the program that emulates it have said.
    fn log(&self) -> String {
        let mut log = String::new();
        for file in LOGS {
            let end = last_lines(&self.said(file), 20);
            if !end.is_empty() {
                log.push_str("\n--- end of its ");
                log.push_str(file);
                log.push_str(" ---\n");
                log.push_str(&end);
            }
        }
        log
    }
}

/// The command as a shell script, run by the guest's first program once everything is mounted.
fn job(request: &Request, kind: Kind) -> Vec<u8> {
    let mut script = b"cd ".to_vec();
    script.extend_from_slice(&quoted(request.cwd.as_os_str()));
    script.extend_from_slice(b" || exit 125\nexec");
    let path = env::join_paths(search_path()).unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let mut variables: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), path),
        ("HOME".into(), env::var_os("HOME").unwrap_or_else(|| "/root".into())),
        ("USER".into(), env::var_os("USER").unwrap_or_else(|| "root".into())),
        ("LANG".into(), "C.UTF-8".into()),
        ("TMPDIR".into(), "/tmp".into()),
    ];
    variables.extend(env::vars_os().filter(|(name, _)| {
        ["LANYARD_", "RUST_", "PROPTEST_"].iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
    }));
    variables.extend(request.env.iter().cloned());
    variables.push(("RIG".into(), kind.name().into()));

    let mut words: Vec<OsString> = Vec::new();
    // The host's own tools, by their paths: busybox would start its own version of any command.
    words.extend(find_program("setsid").map(OsString::from));
    words.extend([find_program("env").unwrap_or_else(|| "/usr/bin/env".into()).into(), "-i".into()]);
    for (mut name, value) in variables {
        name.push("=");
        name.push(value);
        words.push(name);
    }
    words.extend(request.command.iter().cloned());
    for word in &words {
        script.push(b' ');
        script.extend_from_slice(&quoted(word));
    }
    script.push(b'\n');
    script
}

/// A word in single quotes, which the shell takes literally, whatever it contains.
pub fn quoted(word: &OsStr) -> Vec<u8> {
    let mut out = vec![b'\''];
    for &byte in word.as_bytes() {
        if byte == b'\'' {
            out.extend_from_slice(br"'\''");
        } else {
            out.push(byte);
        }
    }
    out.push(b'\'');
    out
}

/// The statically linked busybox that starts the guest.
///
/// # Errors
/// When it cannot be fetched.
pub fn ensure_busybox(workspace: &Workspace) -> Result<PathBuf> {
    let folder = packages::unpacked(workspace, "busybox", |_| Ok("busybox-static".into()))?;
    ["bin/busybox", "usr/bin/busybox"]
        .iter()
        .map(|file| folder.join(file))
        .find(|path| path.is_file())
        .with_context(|| format!("no busybox in {}; delete that folder and try again", folder.display()))
}

/// Makes a folder for one run. A kernel command line has no blanks and a socket path at most 107
/// bytes, so an unusual TMPDIR is not used.
fn make_folder() -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let usual = env::temp_dir().canonicalize().unwrap_or_else(|_| "/tmp".into());
    let plain = usual.as_os_str().len() < 60
        && usual.as_os_str().as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(b));
    let parent = if plain { usual } else { PathBuf::from("/tmp") };
    loop {
        let name = format!("{PREFIX}.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = parent.join(name);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot create {}", folder.display())),
        }
    }
}

/// Removes folders of runs that were killed long ago. Being a day old is part of the test, because
/// from inside a rig the process that owns a folder cannot be seen.
fn sweep() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let Ok(entries) = fs::read_dir(env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('.').nth(1)) else { continue };
        let old = entry
            .metadata()
            .and_then(|data| data.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > DAY));
        if old && !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::process::Command;

    use super::quoted;

    #[test]
    fn the_shell_gives_back_what_was_quoted() {
        let nasty = OsString::from_vec(b"a b'c\"d$HOME`id`\\ \n\t*?~;&|<>(){}[]#!\xff".to_vec());
        let mut script = b"printf %s ".to_vec();
        script.extend_from_slice(&quoted(&nasty));
        let output = Command::new("sh").arg("-c").arg(OsString::from_vec(script)).output().unwrap();
        assert_eq!(output.stdout, nasty.as_bytes());
    }
}
