//! The groups whose members may do something, and how a person becomes a member.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Says which group may use a path, and the command that makes somebody a member. Of a path that cannot be looked at its
/// folder tells, or, where that is hidden as well, the default.
pub fn remedy(path: &Path, default: &str) -> String {
    let looked_at =
        std::fs::metadata(path).or_else(|error| path.parent().map_or(Err(error), std::fs::metadata));
    let group = looked_at.map_or_else(|_| default.to_owned(), |found| name_of(found.gid()));
    format!("; members of the group {group} may: sudo adduser $USER {group}, then log in again")
}

/// The name of a group of this computer, or its number.
fn name_of(group: u32) -> String {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)?.parse() == Ok(group)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| group.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_named() {
        assert_eq!(name_of(0), "root");
        assert_eq!(name_of(u32::MAX - 7), (u32::MAX - 7).to_string());
    }

    #[test]
    fn the_folder_tells_where_the_path_does_not() {
        let text = remedy(Path::new("/proc/no-such-file"), "robots");
        assert!(text.contains("adduser $USER root"), "{text}");
        let text = remedy(Path::new("/no/such/file"), "robots");
        assert!(text.contains("adduser $USER robots"), "{text}");
    }
}
