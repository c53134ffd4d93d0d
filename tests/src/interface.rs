//! Network interfaces: the wire that one is at, and taking one down or away, and giving it back as it was.
//!
//! The rig's interfaces are pairs (vxcan): what is sent at one end arrives at the other as from a wire. The product
//! is at the near end, what stands for the bus and its nodes at the far one.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Where the kernel tells of network interfaces.
const INTERFACES: &str = "/sys/class/net";

/// Runs `ip` with these arguments.
///
/// # Errors
/// There is no `ip`, or it fails.
pub fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot run ip")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Runs `ip link` with these arguments.
///
/// # Errors
/// There is no `ip`, or it fails.
pub fn ip_link(arguments: &[&str]) -> Result<()> {
    ip(&[&["link"], arguments].concat())
}

fn number(name: &str, file: &str) -> Option<u32> {
    std::fs::read_to_string(Path::new(INTERFACES).join(name).join(file)).ok()?.trim().parse().ok()
}

/// The other end of a pair of CAN interfaces; the name itself if the interface is none of a pair. A plain vcan and a
/// controller are their own wire.
#[must_use]
pub fn far_end(name: &str) -> String {
    peer(name).unwrap_or_else(|| name.to_owned())
}

/// The other end of a pair, if the interface is one of a pair: the kernel tells of both ends the other's number.
#[must_use]
pub fn peer(name: &str) -> Option<String> {
    let (own, other) = (number(name, "ifindex")?, number(name, "iflink")?);
    if own == other {
        return None;
    }
    let names = std::fs::read_dir(INTERFACES).ok()?.flatten();
    let mut names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.find(|name| number(name, "ifindex") == Some(other))
}

/// Brings up both ends of a new pair, with CAN FD, as the rig makes them. With a number the near end gets that one.
///
/// # Errors
/// See [`ip_link`].
pub fn add_pair(near: &str, far: &str, number: Option<u32>) -> Result<()> {
    let number = number.map(|number| number.to_string());
    let index = number.iter().flat_map(|number| ["index", number.as_str()]);
    let mut arguments = vec!["add", "dev", near];
    arguments.extend(index);
    arguments.extend(["type", "vxcan", "peer", "name", far]);
    ip_link(&arguments)?;
    for end in [far, near] {
        ip_link(&["set", end, "mtu", "72"])?;
        ip_link(&["set", end, "up"])?;
    }
    Ok(())
}

/// An interface that something was changed on; dropping this puts it right.
#[derive(Debug)]
pub struct Changed {
    name: String,
    /// The size of its frames before the change.
    mtu: String,
}

fn mtu_of(name: &str) -> Result<String> {
    let path = format!("{INTERFACES}/{name}/mtu");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().to_owned())
}

impl Changed {
    /// Takes an interface down.
    ///
    /// # Errors
    /// See [`ip_link`].
    pub fn down(name: &str) -> Result<Self> {
        let mtu = mtu_of(name)?;
        ip_link(&["set", name, "down"])?;
        Ok(Self { name: name.to_owned(), mtu })
    }

    /// Makes an interface carry classic CAN only. The other end of a pair is left as it is.
    ///
    /// # Errors
    /// See [`ip_link`].
    pub fn classic(name: &str) -> Result<Self> {
        let changed = Self::down(name)?;
        ip_link(&["set", name, "mtu", "16"])?;
        ip_link(&["set", name, "up"])?;
        Ok(changed)
    }

    /// Up again, as it was.
    ///
    /// # Errors
    /// See [`ip_link`].
    pub fn restore(self) -> Result<()> {
        // Dropping does it once more, which changes nothing.
        self.put_right()
    }

    fn put_right(&self) -> Result<()> {
        if mtu_of(&self.name)? != self.mtu {
            // The size can only be changed while the interface is down.
            ip_link(&["set", &self.name, "down"])?;
            ip_link(&["set", &self.name, "mtu", &self.mtu])?;
        }
        ip_link(&["set", &self.name, "up"])
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Err(error) = self.put_right() {
            eprintln!("{} is left as it is: {error:#}", self.name);
        }
    }
}

/// A pair that was taken away; dropping this makes another of the same names.
#[derive(Debug)]
pub struct Removed {
    near: String,
    far: String,
}

impl Removed {
    /// Takes both ends of a pair away, as an adapter goes with its plug.
    ///
    /// # Errors
    /// The interface is none of a pair. See [`ip_link`].
    pub fn pair(near: &str) -> Result<Self> {
        let far = peer(near).with_context(|| format!("{near} is none of a pair"))?;
        ip_link(&["del", near])?;
        Ok(Self { near: near.to_owned(), far })
    }

    /// A new pair under the old names, up, with CAN FD as the rig made it.
    ///
    /// # Errors
    /// See [`ip_link`].
    pub fn restore(self) -> Result<()> {
        // Dropping looks once more, and finds it there.
        self.put_right(None)
    }

    /// The same, and the near end has that number.
    ///
    /// # Errors
    /// See [`ip_link`].
    pub fn restore_as(self, number: u32) -> Result<()> {
        self.put_right(Some(number))
    }

    fn put_right(&self, number: Option<u32>) -> Result<()> {
        if Path::new(INTERFACES).join(&self.near).exists() {
            return Ok(());
        }
        add_pair(&self.near, &self.far, number)
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(error) = self.put_right(None) {
            eprintln!("{} is missing: {error:#}", self.near);
        }
    }
}
