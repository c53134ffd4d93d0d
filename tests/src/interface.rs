//! Network interfaces: taking one down or away, and giving it back as it was.

use std::process::Command;

use anyhow::{Context, Result, bail};

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

/// An interface that something was changed on; dropping this puts it right.
#[derive(Debug)]
pub struct Changed {
    name: String,
    /// The size of its frames before the change.
    mtu: String,
}

fn mtu_of(name: &str) -> Result<String> {
    let path = format!("/sys/class/net/{name}/mtu");
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

    /// Makes an interface carry classic CAN only.
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

/// An interface that was taken away; dropping this makes another of its name.
#[derive(Debug)]
pub struct Removed {
    name: String,
}

impl Removed {
    /// Takes a vcan away.
    ///
    /// # Errors
    /// See [`ip_link`].
    pub fn vcan(name: &str) -> Result<Self> {
        ip_link(&["del", name])?;
        Ok(Self { name: name.to_owned() })
    }

    /// A new one under the old name, up, with CAN FD as the rig made it.
    ///
    /// # Errors
    /// See [`ip_link`].
    pub fn restore(self) -> Result<()> {
        self.put_right()
    }

    fn put_right(&self) -> Result<()> {
        if !std::path::Path::new("/sys/class/net").join(&self.name).exists() {
            ip_link(&["add", "dev", &self.name, "type", "vcan"])?;
            ip_link(&["set", &self.name, "mtu", "72"])?;
        }
        ip_link(&["set", &self.name, "up"])
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(error) = self.put_right() {
            eprintln!("{} is missing: {error:#}", self.name);
        }
    }
}
