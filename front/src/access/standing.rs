//! Tokens that a client is given once and sends with every request: a key's id and its secret, with a dot between.
//!
//! For clients whose interface has no login, as hoprd's. There is nothing to sign and nothing that ends by itself: the token is
//! the key, and is worth what the key is worth at that moment.

use std::sync::Arc;

use keys::{Key, KeyId};
use shm_proto::Nanos;

use super::{Access, Bond, Caller, Rejection};
use crate::transport::Connection;

impl Access {
    /// Who has the key that one of these tokens is. A client may send more than one, of which one has to be good; otherwise each
    /// that was looked at is counted as a failed login, for its address and for the key that it claims. What does not even
    /// look like a token guesses nothing, and is not counted. Without keys everybody is let in.
    ///
    /// # Errors
    ///
    /// When none is good, or one is not looked at because too many failed before.
    pub fn token(&self, tokens: &[&str], connection: &Arc<Connection>) -> Result<Caller, Rejection> {
        if !self.is_required() {
            return Ok(Caller::anonymous());
        }
        let (from, mut wrong, mut rejection) = (connection.remote.ip(), Vec::new(), Rejection::Wrong);
        for claim in tokens.iter().filter_map(|token| Claim::of(token)) {
            if let Err(wait) = self.limiter().check(from, Some(claim.id), Nanos::now()) {
                rejection = Rejection::Later(wait);
                continue;
            }
            if let Some(key) = self.book().keys.authenticate(claim.id_text, claim.secret) {
                self.limiter().succeeded(from, key.id);
                return self.admit_once(key, connection);
            }
            wrong.push(claim.id);
        }
        for claimed in wrong {
            self.failed(from, Some(claimed));
        }
        Err(rejection)
    }

    /// Lets a request in of who has proven to have a key, unless the key has gone or changed meanwhile.
    fn admit_once(&self, key: &Key, connection: &Arc<Connection>) -> Result<Caller, Rejection> {
        // First this, so that a key that goes from now on takes the connection along.
        self.note(key.id, connection, Bond::Request);
        let book = self.book();
        let is_the_same = book.keys.get(key.id).is_some_and(|now| now.hash == key.hash);
        book.callers.get(&key.id).filter(|_| is_the_same).cloned().ok_or(Rejection::Wrong)
    }
}

/// What a token says.
struct Claim<'a> {
    id: KeyId,
    id_text: &'a str,
    secret: &'a str,
}

impl<'a> Claim<'a> {
    /// `None` for a text that is no token of anybody.
    fn of(token: &'a str) -> Option<Self> {
        let (id_text, secret) = token.split_once('.')?;
        Some(Self { id: KeyId::parse(id_text)?, id_text, secret })
    }
}
