//! Who calls, and what they may do.
//!
//! What lives here: the identity behind every request, known before anything of the request is acted on; the keys,
//! logins and tokens it comes from; and the certificate that proves this robot to its clients. What must
//! never live here: a transport, or a rule of a particular client protocol but its login.
//!
//! | file | its one idea |
//! |---|---|
//! | [`caller`] | who calls |
//! | [`rules`] | which role a method needs |
//! | [`token`] | what a login is worth, and for how long |
//! | [`limiter`] | who guesses waits, nobody else does |
//! | [`line`] | one password at a time |
//! | [`login`] | Viam's login |
//! | [`standing`] | tokens that are the key itself |
//! | [`tls`] | certificate and private key |
//! | [`exposure`] | what is not served to other computers unless it is wanted |
//! | [`watcher`] | files are read again when they have changed |

mod caller;
mod exposure;
mod limiter;
mod line;
mod login;
mod rules;
mod standing;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod watcher;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use anyhow::Context as _;
use config::Config;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use keys::{Key, KeyId, Keys, KeysFile};
use shm_proto::Nanos;
use tonic::Status;
use tracing::{error, info, warn};

pub use caller::Caller;
use limiter::Limiter;
use line::Line;
pub use login::Login;
pub use rules::{Need, need};
pub use tls::Tls;
use token::{Proof, Tokens};
use watcher::Watched;

use crate::transport::Connection;

/// Before the token in `authorization`.
const BEARER: &str = "Bearer ";

/// Who may call: the keys, and the tokens given for them.
#[derive(Debug)]
pub struct Access {
    file: KeysFile,
    book: RwLock<Arc<Book>>,
    /// Whether there has ever been a key: when the last one goes, nobody gets in, instead of everybody.
    required: AtomicBool,
    tokens: Tokens,
    limiter: Mutex<Limiter>,
    /// Those whose password is to be looked at.
    passwords: Line,
    /// Over which connections each key has called.
    connections: Mutex<HashMap<KeyId, BTreeMap<u64, Use>>>,
}

/// That a key is used over a connection.
#[derive(Debug)]
struct Use {
    connection: Weak<Connection>,
    bond: Bond,
}

/// For how long it is known who calls over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bond {
    /// Each request says it anew, so that what has changed meanwhile holds for it.
    Request,
    /// What was known when somebody logged in holds until the connection ends.
    Login,
}

/// The keys as they are, and who calls with each.
#[derive(Debug)]
struct Book {
    keys: Keys,
    callers: HashMap<KeyId, Caller>,
}

impl Book {
    fn of(keys: Keys) -> Arc<Self> {
        let callers = keys.iter().map(|key| (key.id, Caller::with(key))).collect();
        Arc::new(Self { keys, callers })
    }
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The kernel has no random numbers: nobody gets in.
    NoRandomness,
    /// No such key, or not its secret.
    Wrong,
    /// Too many have failed; this one was not looked at.
    Later(Duration),
    /// Too many are in line; this one was not looked at.
    Busy(Duration),
}

impl Access {
    /// Reads the keys, and goes on looking whether they, or the certificate, change.
    ///
    /// # Errors
    ///
    /// When keys or certificate cannot be read, have mistakes, or others could read them; when the front would be
    /// open to other computers, and the configuration does not say that it may.
    pub fn start(config: &Config) -> anyhow::Result<(Arc<Self>, Option<Arc<Tls>>)> {
        let front = &config.front;
        let file = KeysFile::at(&front.access.keys);
        let keys_seen = watcher::stamp(file.path());
        let keys = file.load()?;
        exposure::check(config, &keys)?;
        let tokens = Tokens::new(front.access.token_lifetime).context("cannot make a secret for tokens")?;
        let access = Arc::new(Self::of(file, keys, tokens));
        let mut watched = vec![Watched {
            files: vec![access.file.path().to_owned()],
            seen: vec![keys_seen],
            reload: Box::new({
                let access = Arc::clone(&access);
                move || access.reload()
            }),
        }];
        let tls = match &front.access.tls {
            None => None,
            Some(files) => {
                let paths = vec![files.certificate.clone(), files.private_key.clone()];
                let seen = paths.iter().map(|path| watcher::stamp(path)).collect();
                let tls = Arc::new(Tls::load(files)?);
                let reload = Box::new({
                    let tls = Arc::clone(&tls);
                    move || tls.reload()
                });
                watched.push(Watched { files: paths, seen, reload });
                Some(tls)
            }
        };
        watcher::watch(watched).context("cannot start the thread that looks after keys and certificate")?;
        Ok((access, tls))
    }

    fn of(file: KeysFile, keys: Keys, tokens: Tokens) -> Self {
        Self {
            file,
            required: AtomicBool::new(!keys.is_empty()),
            book: RwLock::new(Book::of(keys)),
            tokens,
            limiter: Mutex::new(Limiter::new()),
            passwords: Line::default(),
            connections: Mutex::default(),
        }
    }

    /// Whether callers have to log in.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.required.load(Ordering::Acquire)
    }

    fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who sends these headers. Where nobody has to log in here, a login that a server behind may ask for tells one caller
    /// from another.
    ///
    /// # Errors
    ///
    /// UNAUTHENTICATED when a token is needed, and there is none, or it is not good (any more).
    pub fn caller(
        &self,
        headers: &HeaderMap,
        connection: Option<&Arc<Connection>>,
    ) -> Result<Caller, Status> {
        if !self.is_required() {
            let login = headers.get(AUTHORIZATION);
            return Ok(login.map_or_else(Caller::anonymous, |login| {
                Caller::unchecked(&self.tokens.pseudonym(login.as_bytes()))
            }));
        }
        let refused = || Status::unauthenticated("authentication required");
        let mut tokens = headers.get_all(AUTHORIZATION).iter();
        let token = tokens.next().filter(|_| tokens.next().is_none());
        let token = token.and_then(|token| token.to_str().ok()?.strip_prefix(BEARER)).ok_or_else(refused)?;
        let proof = self.tokens.verify(token, Nanos::now()).ok_or_else(refused)?;
        // First this, so that a key that goes meanwhile takes the connection along.
        if let Some(connection) = connection {
            self.note(proof.key, connection, Bond::Request);
        }
        let book = self.book();
        let is_the_same_secret = book.keys.get(proof.key).is_some_and(|key| Proof::of(key) == proof);
        book.callers.get(&proof.key).filter(|_| is_the_same_secret).cloned().ok_or_else(refused)
    }

    /// Notes that a key is used over a connection.
    fn note(&self, key: KeyId, connection: &Arc<Connection>, bond: Bond) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = connections.entry(key).or_default();
        if let Some(noted) = of_key.get_mut(&connection.id) {
            noted.bond = noted.bond.max(bond);
        } else {
            of_key.retain(|_, other| other.connection.strong_count() > 0);
            of_key.insert(connection.id, Use { connection: Arc::downgrade(connection), bond });
        }
    }

    /// A token for who has this secret.
    ///
    /// # Errors
    ///
    /// When the login is wrong, or is not looked at because too many failed before.
    pub fn log_in(&self, entity: &str, secret: &str, from: IpAddr) -> Result<String, Rejection> {
        let (claimed, now) = (KeyId::parse(entity), Nanos::now());
        self.limiter().check(from, claimed, now).map_err(Rejection::Later)?;
        let book = self.book();
        let Some(key) = book.keys.authenticate(entity, secret) else {
            return Err(self.failed(from, claimed));
        };
        self.succeeded(from, key);
        self.tokens.issue(Proof::of(key), now).map_err(|_| Rejection::NoRandomness)
    }

    /// Who has the key of that name and this password, or this secret; its connection ends with the key, or when its role or
    /// window is another. Not on a thread that beats: it takes a tenth of a second, and waits for others.
    ///
    /// # Errors
    ///
    /// As for [`Self::log_in`]; also when too many passwords are in line.
    pub fn password(
        &self,
        user: &str,
        password: &str,
        connection: &Arc<Connection>,
    ) -> Result<Caller, Rejection> {
        let from = connection.remote.ip();
        let book = self.book();
        let claimed = book.keys.claimed(user);
        let listened = || self.limiter().check(from, Some(claimed), Nanos::now()).map_err(Rejection::Later);
        listened()?;
        // A program with a secret of full entropy waits for nobody, and nothing is told by its being quick: it is in.
        if let Some(key) = book.keys.authenticate_named(user, password) {
            return self.admit(from, key, connection);
        }
        let place = self.passwords.join().ok_or(Rejection::Busy(line::AGAIN))?;
        let turn = place.wait();
        // Those who were in line before may have failed so often that this one is not to be looked at any more.
        listened()?;
        let Some(key) = book.keys.authenticate_password(user, password) else {
            return Err(self.failed(from, Some(claimed)));
        };
        drop(turn);
        self.admit(from, key, connection)
    }

    /// Lets in over a connection who has proven to have a key, unless the key has gone or changed meanwhile.
    fn admit(&self, from: IpAddr, key: &Key, connection: &Arc<Connection>) -> Result<Caller, Rejection> {
        // First this, so that a key that goes from now on takes the connection along.
        self.note(key.id, connection, Bond::Login);
        let book = self.book();
        let is_the_same = book.keys.get(key.id).is_some_and(|now| now.hash == key.hash);
        let caller = book.callers.get(&key.id).filter(|_| is_the_same).cloned().ok_or(Rejection::Wrong)?;
        self.succeeded(from, key);
        Ok(caller)
    }

    fn failed(&self, from: IpAddr, claimed: Option<KeyId>) -> Rejection {
        if self.limiter().failed(from, claimed, Nanos::now()) {
            warn!("failed logins from {from}: no other login from there is looked at for a while");
        } else {
            info!("a login from {from} has failed");
        }
        Rejection::Wrong
    }

    /// Binds a connection to the key of who opened it: it ends with the key, or when its role or window is another; at once if
    /// that has happened since the caller was let in.
    pub fn bind(&self, caller: &Caller, connection: &Arc<Connection>) {
        let Some(proof) = caller.proof else { return };
        // First this, so that a key that goes from now on takes the connection along.
        self.note(proof.key, connection, Bond::Login);
        let is_the_same =
            |now: &Caller| (now.proof, now.role, now.window) == (caller.proof, caller.role, caller.window);
        if !self.book().callers.get(&proof.key).is_some_and(is_the_same) {
            connection.dismiss();
        }
    }

    fn succeeded(&self, from: IpAddr, key: &Key) {
        self.limiter().succeeded(from, key.id);
        info!("key \"{}\" has logged in from {from}", key.name);
    }

    fn limiter(&self) -> std::sync::MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the keys again. With a mistake in the file the keys stay as they are.
    fn reload(&self) {
        let keys = match self.file.load() {
            Ok(keys) => keys,
            Err(error) => return error!("{error}. The keys stay as they were"),
        };
        let (before, after) = (self.book(), Book::of(keys));
        if !after.keys.is_empty() {
            self.required.store(true, Ordering::Release);
        } else if self.is_required() {
            warn!("{}: no key is left; nobody is let in until there is one", self.file.path().display());
        }
        *self.book.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&after);
        for key in before.keys.iter() {
            match after.keys.get(key.id) {
                Some(now) if now.hash == key.hash => {
                    if (now.role, now.window) != (key.role, key.window) {
                        warn!(
                            "key \"{}\" ({}) is another; who logged in before has to again",
                            now.name, now.role
                        );
                        self.disconnect(key.id, Bond::Login);
                    }
                }
                Some(_) | None => {
                    warn!("key \"{}\" is gone; whoever used it is disconnected", key.name);
                    self.disconnect(key.id, Bond::Request);
                }
            }
        }
        for key in after.keys.iter().filter(|key| before.keys.get(key.id).is_none()) {
            info!("key \"{}\" ({}) may log in from now on", key.name, key.role);
        }
    }

    /// Ends the connections over which a key has called, if they are bound to it at least so: streams under way go on without
    /// it no more than calls.
    fn disconnect(&self, key: KeyId, bond: Bond) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = connections.entry(key).or_default();
        for (_, gone) in of_key.extract_if(.., |_, noted| noted.bond >= bond) {
            if let Some(connection) = gone.connection.upgrade() {
                connection.dismiss();
            }
        }
        if of_key.is_empty() {
            connections.remove(&key);
        }
    }
}
