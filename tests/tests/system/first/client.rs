//! A client drives over TCP, and is heard no more.

use anyhow::Result;
use nix::sys::signal::Signal;
use tests::clock::Moment;
use tests::interface::{ip, ip_link};

use crate::client::Client;
use crate::machine::{FRONT, Unit};
use crate::scene::{play, signal};

/// Fails if a client that falls silent is not followed by a stop at the far end of the wire when its window has passed,
/// if anything drives after it, or if status and events tell another story.
#[test]
fn silent_client_is_stopped_and_the_story_is_told() -> Result<()> {
    play(|scene| {
        let client = scene.drive()?;
        client.fall_silent()?;
        scene.stopped_at_deadline(Moment::now())?;
        scene.verified()
    })
}

/// A network namespace with the client's computer in it, and a cable to the robot; gone when dropped.
struct Computer;

impl Computer {
    const NAME: &str = "computer";
    /// The robot's end of the cable.
    const CABLE: &str = "cable0";

    fn plugged_in() -> Result<Self> {
        let (name, cable) = (Self::NAME, Self::CABLE);
        ip(&["netns", "add", name])?;
        let made = Self;
        ip_link(&["add", cable, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        ip(&["address", "add", "10.77.0.1/24", "dev", cable])?;
        ip_link(&["set", cable, "up"])?;
        ip(&["-n", name, "address", "add", "10.77.0.2/24", "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
        Ok(made)
    }
}

impl Drop for Computer {
    fn drop(&mut self) {
        // Both ends of the cable go with the namespace.
        if let Err(error) = ip(&["netns", "del", Self::NAME]) {
            eprintln!("{} is left: {error:#}", Self::NAME);
        }
    }
}

/// Fails if a client whose network is gone, which closes no connection, is not stopped at its window.
#[test]
fn unplugged_client_is_stopped_at_its_window() -> Result<()> {
    play(|scene| {
        let _computer = Computer::plugged_in()?;
        let client = Client::connect_from(Computer::NAME, "10.77.0.1:8080")?;
        scene.turn(&client)?;
        ip_link(&["set", Computer::CABLE, "down"])?;
        scene.stopped_at_deadline(Moment::now())?;
        scene.verified()
    })
}

/// Fails if a client whose front hangs is driven on: the client beats, and nobody hears it.
#[test]
fn hanging_front_is_stopped_at_its_window() -> Result<()> {
    play(|scene| {
        let _client = scene.drive()?;
        let front = Unit::show(FRONT)?.pid()?;
        let from = signal(front, Signal::SIGSTOP)?;
        let stopped = scene.stopped_since(from, crate::scene::WINDOW + crate::scene::PROMPT);
        signal(front, Signal::SIGCONT)?;
        stopped.map(drop)
    })
}
