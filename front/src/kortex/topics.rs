//! Who wants to be told of changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::channel::{Channel, Transport};
use super::frame::{Frame, MessageNumber, Method, SessionNumber};
use super::refusal::{Refusal, Sub};

/// Subscriptions of one connection: two topics are served, and clients subscribe once.
const MOST: usize = 16;

#[derive(Debug)]
struct Subscription {
    channel: Weak<Channel>,
    id: u64,
    session: SessionNumber,
    method: Method,
}

/// All subscriptions.
#[derive(Debug, Default)]
pub struct Topics {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    subscriptions: HashMap<u16, Subscription>,
    last: u16,
}

impl Topics {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes a client to a topic. Returns the handle that its notifications have for a number.
    ///
    /// # Errors
    ///
    /// When it has too many subscriptions.
    pub fn subscribe(
        &self,
        channel: &Arc<Channel>,
        session: SessionNumber,
        method: Method,
    ) -> Result<MessageNumber, Refusal> {
        let mut book = self.book();
        book.subscriptions.retain(|_, other| other.channel.strong_count() > 0);
        if book.subscriptions.values().filter(|other| other.id == channel.id()).count() >= MOST {
            let text = format!("a connection has {MOST} subscriptions at most; unsubscribe first");
            return Err(Refusal::device(Sub::MethodFailed, text));
        }
        let handle = loop {
            book.last = book.last.wrapping_add(1);
            if book.last != 0 && !book.subscriptions.contains_key(&book.last) {
                break book.last;
            }
        };
        let subscription =
            Subscription { channel: Arc::downgrade(channel), id: channel.id(), session, method };
        book.subscriptions.insert(handle, subscription);
        Ok(MessageNumber(handle))
    }

    /// Ends the subscription with that handle.
    ///
    /// # Errors
    ///
    /// When this client has no such one.
    pub fn unsubscribe(&self, channel: &Channel, handle: u32) -> Result<(), Refusal> {
        let mut book = self.book();
        let own = u16::try_from(handle)
            .ok()
            .filter(|handle| book.subscriptions.get(handle).is_some_and(|other| other.id == channel.id()));
        let text = || format!("you have no subscription {handle}");
        let own = own.ok_or_else(|| Refusal::protocol(Sub::InvalidParam, text()))?;
        book.subscriptions.remove(&own);
        Ok(())
    }

    /// Ends the subscriptions of a session that is over.
    pub fn forget(&self, session: SessionNumber) {
        self.book().subscriptions.retain(|_, other| other.session != session);
    }

    /// Ends a client's subscriptions to a topic.
    pub fn leave(&self, channel: &Channel, method: Method) {
        self.book().subscriptions.retain(|_, other| other.id != channel.id() || other.method != method);
    }

    /// Tells everybody who wants to know. Over MQTT topics count: who has only called a method of the same name is not told,
    /// and who has done both not twice.
    pub fn publish(&self, method: Method, message: &impl prost::Message) {
        for (handle, other) in self.book().subscriptions.iter().filter(|(_, other)| other.method == method) {
            let Some(channel) = other.channel.upgrade() else { continue };
            if channel.transport != Transport::Mqtt || other.session == SessionNumber::default() {
                channel.notify(Frame::notification(other.session, MessageNumber(*handle), method, message));
            }
        }
    }
}
