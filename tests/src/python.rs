//! Real clients: the unmodified Python SDK of Viam, each client a process of its own.
//!
//! The scripts are in `clients/`: a zygote imports the SDK once and forks a process for every client, so
//! that a client can be killed for real and starting one is quick.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bound::OutOfTime;
use crate::clock::Moment;
use crate::folder::Folder;

const SCRIPTS: &[(&str, &str)] = &[
    ("zygote.py", include_str!("../clients/zygote.py")),
    ("viam_client.py", include_str!("../clients/viam_client.py")),
    ("upstream.py", include_str!("../clients/upstream.py")),
    ("grpcio_server.py", include_str!("../clients/grpcio_server.py")),
    ("testecho.py", include_str!("../clients/testecho.py")),
    ("rude.py", include_str!("../clients/rude.py")),
    ("floods.py", include_str!("../clients/floods.py")),
    ("raw.py", include_str!("../clients/raw.py")),
    ("reflection.py", include_str!("../clients/reflection.py")),
    ("pipeline.py", include_str!("../clients/pipeline.py")),
    ("kortex.py", include_str!("../clients/kortex.py")),
    ("kortex_base.py", include_str!("../clients/kortex_base.py")),
    ("kortex_frames.py", include_str!("../clients/kortex_frames.py")),
    ("kortex_messages.py", include_str!("../clients/kortex_messages.py")),
    ("kortex_rude.py", include_str!("../clients/kortex_rude.py")),
    ("kortex_transports.py", include_str!("../clients/kortex_transports.py")),
    ("tunnel.py", include_str!("../clients/tunnel.py")),
    ("hoprd.py", include_str!("../clients/hoprd.py")),
    ("socketcand_server.py", include_str!("../clients/socketcand_server.py")),
    ("cannelloni_end.py", include_str!("../clients/cannelloni_end.py")),
];

/// The messages of `front/proto/kortex`, as `build.rs` compiled them.
const KORTEX_MESSAGES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kortex.binpb"));

/// How long importing the SDK may take: about 3 s in user-mode Linux, 40 s in QEMU, and 70 s in QEMU on a busy host.
const IMPORT: Duration = Duration::from_secs(180);
/// How long an ordinary call may take. The client library's own worst case is a second spent on joining a
/// thread; a drive is given 3 s to come up.
const CALL: Duration = Duration::from_secs(15);

/// The process that clients are forked from.
#[derive(Debug)]
pub struct Clients {
    folder: Folder,
    zygote: Child,
    orders: ChildStdin,
    made: AtomicU64,
}

impl Clients {
    /// Starts the interpreter that `LANYARD_PYTHON` names.
    ///
    /// # Errors
    /// The variable is not set, or the SDK cannot be imported.
    pub fn start() -> Result<Self> {
        let python = std::env::var_os("LANYARD_PYTHON").context(
            "LANYARD_PYTHON is not set: it must name a Python with viam-sdk; `cargo xtask test` sets it",
        )?;
        Self::start_with(Path::new(&python))
    }

    /// Starts this interpreter.
    ///
    /// # Errors
    /// The SDK cannot be imported.
    pub fn start_with(python: &Path) -> Result<Self> {
        let folder = Folder::new()?;
        for (name, text) in SCRIPTS {
            std::fs::write(folder.file(name), text).with_context(|| format!("cannot write {name}"))?;
        }
        std::fs::write(folder.file("kortex.binpb"), KORTEX_MESSAGES).context("cannot write kortex.binpb")?;
        let mut zygote = Command::new(python)
            .arg(folder.file("zygote.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("LANYARD_SHOW").is_some() { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let orders = zygote.stdin.take().context("no stdin")?;
        let mut answers = BufReader::new(zygote.stdout.take().context("no stdout")?);
        let clients = Self { folder, zygote, orders, made: AtomicU64::new(0) };
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // Whoever waits may have given up.
            drop(answers.read_line(&mut line).map(|_| sender.send(line)));
        });
        match receiver.recv_timeout(IMPORT) {
            Ok(line) if line.trim() == "ready" => Ok(clients),
            other => bail!("{} cannot import viam-sdk ({other:?})", python.display()),
        }
    }

    /// A new client in a process of its own, not connected to anything yet.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn fork(&mut self) -> Result<Client> {
        self.fork_as("client")
    }

    /// A new server to put behind Lanyard, in a process of its own, that does not serve yet. It is told what to do as
    /// a client is: see `clients/upstream.py`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn fork_upstream(&mut self) -> Result<Client> {
        self.fork_as("upstream")
    }

    /// A server of gRPC's own library, in a process of its own, that does not serve yet: see `clients/grpcio_server.py`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn fork_grpcio(&mut self) -> Result<Client> {
        self.fork_as("grpcio")
    }

    /// A new program for an arm of Kinova's, in a process of its own, not connected to anything yet: see
    /// `clients/kortex.py`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn fork_kortex(&mut self) -> Result<Client> {
        self.fork_as("kortex")
    }

    /// A new program that drives through a tunnel, in a process of its own, not connected to anything yet: see
    /// `clients/tunnel.py`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn fork_tunnel(&mut self) -> Result<Client> {
        self.fork_as("tunnel")
    }

    /// A new server with socketcand's protocol, in a process of its own, that does not serve yet: see
    /// `clients/socketcand_server.py`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn fork_socketcand(&mut self) -> Result<Client> {
        self.fork_as("socketcand")
    }

    /// A new end of a cannelloni, in a process of its own, that does not serve yet: see `clients/cannelloni_end.py`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn fork_cannelloni(&mut self) -> Result<Client> {
        self.fork_as("cannelloni")
    }

    /// A new base of Kinova's to put behind Lanyard, in a process of its own, that does not serve yet: see
    /// `clients/kortex_base.py`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn fork_kortex_base(&mut self) -> Result<Client> {
        self.fork_as("kortex_base")
    }

    /// A new client that awaits nothing, in a process of its own, not connected to anything yet: see
    /// `clients/pipeline.py` and [`crate::pipeline`].
    ///
    /// # Errors
    /// It cannot be started.
    pub fn fork_pipeline(&mut self) -> Result<Client> {
        self.fork_as("pipeline")
    }

    fn fork_as(&mut self, role: &str) -> Result<Client> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.file(&format!("{number}.sock"));
        let listener = UnixListener::bind(&path).context("cannot listen for a client")?;
        listener.set_nonblocking(true)?;
        writeln!(self.orders, "{} {role}", path.display()).context("the Python interpreter has ended")?;
        let (stream, _) = crate::expect::within(Duration::from_secs(20), "a client connects", || {
            listener.accept().map_err(|error| error.to_string())
        })?;
        stream.set_nonblocking(false)?;
        Client::new(stream)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        drop(self.zygote.kill());
        drop(self.zygote.wait());
    }
}

#[derive(Debug, Default)]
struct Replies {
    by_number: Mutex<HashMap<u64, Value>>,
    news: Condvar,
}

/// One client process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Client {
    pid: Pid,
    orders: UnixStream,
    replies: Arc<Replies>,
    next: u64,
    gone: bool,
}

/// Why a call failed, as the client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The exception.
    pub kind: String,
    /// The gRPC status by name, or Kortex's two numbers (`1/54`), if it came from the server.
    pub status: Option<String>,
    /// Its message.
    pub message: String,
}

/// What a call ended with.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The value, or why there is none.
    pub result: Result<Value, Refusal>,
    /// How long it took, as the client measured it.
    pub seconds: f64,
}

impl Outcome {
    /// The value.
    ///
    /// # Errors
    /// The call failed.
    pub fn value(self) -> Result<Value> {
        self.result.map_err(|r| anyhow!("{}: {:?} {}", r.kind, r.status, r.message))
    }

    /// The refusal.
    ///
    /// # Errors
    /// The call succeeded.
    pub fn refusal(self) -> Result<Refusal> {
        match self.result {
            Ok(value) => bail!("the call succeeded with {value}, but must not"),
            Err(refusal) => Ok(refusal),
        }
    }
}

/// A call that has been started.
#[derive(Clone, Copy, Debug)]
pub struct Pending(u64);

impl Client {
    /// The process at the other end; its first line tells its number.
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut first = String::new();
        lines.read_line(&mut first).context("the client died at once")?;
        let hello: Value = serde_json::from_str(&first).context("the client's first line")?;
        let pid = hello["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).context("no process id")?;
        let replies = Arc::new(Replies::default());
        let for_thread = Arc::clone(&replies);
        std::thread::spawn(move || {
            for line in lines.lines() {
                let Ok(line) = line else { return };
                let Ok(reply) = serde_json::from_str::<Value>(&line) else { continue };
                let number = reply["number"].as_u64().unwrap_or_default();
                for_thread.by_number.lock().unwrap_or_else(PoisonError::into_inner).insert(number, reply);
                for_thread.news.notify_all();
            }
        });
        Ok(Self { pid: Pid::from_raw(pid), orders: stream, replies, next: 0, gone: false })
    }

    /// Starts a call: a name from the script of the client's role (`clients/viam_client.py`) and its arguments.
    ///
    /// # Errors
    /// The client has died.
    pub fn begin(&mut self, name: &str, arguments: Value) -> Result<Pending> {
        self.next += 1;
        let mut request = arguments;
        request["number"] = json!(self.next);
        request["do"] = json!(name);
        writeln!(self.orders, "{request}").context("the client has died")?;
        Ok(Pending(self.next))
    }

    /// Waits for the end of a call.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn finish(&self, call: Pending, limit: Duration) -> Result<Outcome> {
        let until = Instant::now() + limit;
        let mut replies = self.replies.by_number.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(reply) = replies.remove(&call.0) {
                return Ok(outcome(&reply));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = format!("no answer to call number {} within {limit:?}", call.0);
                return Err(OutOfTime::error(limit, text));
            }
            replies = self.replies.news.wait_timeout(replies, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Calls and waits for the end.
    ///
    /// # Errors
    /// It does not end in time. A call that the server refuses is an outcome.
    pub fn call(&mut self, name: &str, arguments: Value) -> Result<Outcome> {
        self.call_within(CALL, name, arguments)
    }

    /// Calls and waits for the end for as long as given.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub fn call_within(&mut self, limit: Duration, name: &str, arguments: Value) -> Result<Outcome> {
        let call = self.begin(name, arguments)?;
        self.finish(call, limit).with_context(|| name.to_owned())
    }

    /// Calls, and expects it to succeed.
    ///
    /// # Errors
    /// It does not.
    pub fn ask(&mut self, name: &str, arguments: Value) -> Result<Value> {
        self.call(name, arguments.clone())?.value().with_context(|| format!("{name} {arguments}"))
    }

    /// Kills the process, and returns when.
    ///
    /// # Errors
    /// It has died before.
    pub fn kill(&mut self) -> Result<Moment> {
        let before = Moment::now();
        kill(self.pid, Signal::SIGKILL).context("cannot kill the client")?;
        self.gone = true;
        Ok(before)
    }

    /// Sends the process a signal.
    ///
    /// # Errors
    /// It has died.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid, signal).with_context(|| format!("cannot send {signal} to the client"))
    }
}

fn outcome(reply: &Value) -> Outcome {
    let error = &reply["error"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let result = if error.is_null() {
        Ok(reply["value"].clone())
    } else {
        Err(Refusal {
            kind: text(&error["kind"]).unwrap_or_default(),
            status: text(&error["status"]),
            message: text(&error["message"]).unwrap_or_default(),
        })
    };
    Outcome { result, seconds: reply["seconds"].as_f64().unwrap_or(f64::NAN) }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.gone {
            // It may have ended by itself.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}
