//! A short first-in-first-out queue that is plain data, as every part of a state must be.

/// How many frames wait at most. Two: one that is stale and one behind it that makes up for it. A full
/// queue is the kernel's ENOBUFS.
pub const CAPACITY: usize = 2;

/// A queue of [`CAPACITY`] places, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Queue<T> {
    places: [Option<T>; CAPACITY],
}

impl<T: Copy + PartialEq> Queue<T> {
    /// Nothing waits.
    pub const EMPTY: Self = Self { places: [None; CAPACITY] };

    /// Puts an item at the end; `false` when there is no room.
    pub fn push(&mut self, item: T) -> bool {
        match self.places.iter_mut().find(|place| place.is_none()) {
            Some(place) => {
                *place = Some(item);
                true
            }
            None => false,
        }
    }

    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        let oldest = self.places[0].take();
        self.places.rotate_left(1);
        oldest
    }

    /// Whether one more item fits.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.places.iter().any(Option::is_none)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places[0].is_none()
    }

    /// The oldest item.
    #[must_use]
    pub fn first(&self) -> Option<T> {
        self.places[0]
    }

    /// The newest item.
    #[must_use]
    pub fn last(&self) -> Option<T> {
        self.places.iter().rev().copied().flatten().next()
    }

    /// Whether the item waits.
    #[must_use]
    pub fn contains(&self, item: T) -> bool {
        self.places.contains(&Some(item))
    }
}
