//! Kernel modules: which file is which module, and what has to be loaded before it.
//!
//! What lives here: [`load_order`]. The order is read from the modules themselves, so that neither
//! depmod nor modprobe is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::install::{XZ, ensure_tool, output_of};

/// The module files to load, each after what it depends on. A module that is neither a file nor
/// built into the kernel is an error if it is among `required`, and left out if it is `wanted` only.
///
/// # Errors
/// When a required module is missing or a module cannot be read.
pub fn load_order(kernel: &Path, required: &[&str], wanted: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = BTreeMap::new();
    index(kernel, &mut files)?;
    let built_in = kernel.parent().map(|folder| folder.join("modules.builtin"));
    let built_in = built_in.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
    let built_in: BTreeSet<String> =
        built_in.lines().filter_map(|line| module_name(Path::new(line))).collect();
    for name in required.iter().map(|name| canonical(name)) {
        if !files.contains_key(&name) && !built_in.contains(&name) {
            bail!("the kernel in {} has no module {name}", kernel.display());
        }
    }
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in required.iter().chain(wanted) {
        visit(&canonical(name), &files, &mut seen, &mut order)?;
    }
    Ok(order)
}

fn visit(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    seen: &mut BTreeSet<String>,
    order: &mut Vec<PathBuf>,
) -> Result<()> {
    let Some(file) = files.get(name) else { return Ok(()) };
    if seen.insert(name.to_owned()) {
        for dependency in dependencies(&content(file)?) {
            visit(&dependency, files, seen, order)?;
        }
        order.push(file.clone());
    }
    Ok(())
}

fn index(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            index(&entry.path(), files)?;
        } else if let Some(name) = module_name(&entry.path()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// The name of the module in a file, if it is one.
pub fn module_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let name = name.strip_suffix(".xz").unwrap_or(name);
    name.strip_suffix(".ko").map(canonical)
}

/// The kernel takes `-` and `_` in module names for the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// A module, decompressed.
///
/// # Errors
/// When it cannot be read or decompressed.
pub fn content(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_some_and(|extension| extension == "xz") {
        output_of(Command::new(ensure_tool(XZ)?).arg("-dc").arg(file))
    } else {
        fs::read(file).with_context(|| format!("cannot read {}", file.display()))
    }
}

/// What a module says it needs: its `.modinfo` section has NUL-terminated `key=value` strings, one of
/// them `depends=a,b`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = &module[at + KEY.len()..];
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).split(',').filter(|name| !name.is_empty()).map(canonical).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{dependencies, module_name};

    #[test]
    fn names_and_dependencies() {
        assert_eq!(module_name(Path::new("kernel/net/can/can-raw.ko.xz")).unwrap(), "can_raw");
        assert_eq!(module_name(Path::new("kernel/net/can/can.ko")).unwrap(), "can");
        assert_eq!(module_name(Path::new("modules.dep")), None);
        assert_eq!(dependencies(b"\x7fELF\0license=GPL\0depends=can,can-dev\0name=x\0"), ["can", "can_dev"]);
        assert_eq!(dependencies(b"\0depends=\0"), Vec::<String>::new());
    }
}
